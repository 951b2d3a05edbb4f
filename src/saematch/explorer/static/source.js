// Where answers come from: the server, or, in an exported file, what the file holds.

export const held = JSON.parse(document.getElementById("held")?.textContent ?? "null");

export async function ask(question, asked = {}) {
  if (held) return fromHeld(question, asked);
  const response = await fetch(`api/${question}?${new URLSearchParams(asked)}`);
  const value = await response.json();
  if (!response.ok) throw new Error(value.error);
  return value;
}

function fromHeld(question, asked) {
  if (question === "about") return held.about;
  if (question === "whole") return held.whole;
  if (question === "find") return findHeld(asked);
  const { key, feature } = asked;
  if (question === "contexts") return held.contexts[`${key}/${feature}`] ?? [];
  if (question === "follow") {
    const path = held.paths.find((cards) => cards.some((card) => card.key === key && card.feature === Number(feature)));
    if (path) return path;
    throw new Error(`feature ${key}/${feature} is not among the ${held.paths.length} paths that this file holds`);
  }
  throw new Error("this is not in an exported file; it needs: saematch explore DIR");
}

function findHeld(asked) {
  const words = (asked.text ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  const place = /^\s*(\S+?)\s*\/\s*(\d+)\s*$/.exec(asked.text ?? "");
  const token = (asked.token ?? "").trim().toLowerCase();
  const seen = new Map(held.paths.flat().map((card) => [`${card.key}/${card.feature}`, card]));
  const rows = [...seen.values()].filter((card) => {
    if (place) return card.key === place[1] && card.feature === Number(place[2]);
    if (!words.every((word) => (card.text ?? "").toLowerCase().includes(word))) return false;
    if (token && ![...(card.fires_on ?? []), ...(card.promotes ?? [])].some((one) => one.trim().toLowerCase() === token)) return false;
    if (["key", "status", "label"].some((name) => asked[name] && card[name] !== asked[name])) return false;
    return ["mse", "density", "margin"].every((name) =>
      (!asked[`${name}_min`] || (card[name] !== null && card[name] >= Number(asked[`${name}_min`]))) &&
      (!asked[`${name}_max`] || (card[name] !== null && card[name] <= Number(asked[`${name}_max`]))));
  });
  const by = asked.sort && asked.sort !== "key" ? asked.sort : null, sign = asked.descending === "1" ? -1 : 1;
  rows.sort((a, b) => by ? (a[by] === null) - (b[by] === null) || sign * (a[by] - b[by]) : sign * (a.layer - b.layer || a.feature - b.feature));
  const size = 50, first = size * (Number(asked.page ?? 1) - 1);
  return { rows: rows.slice(first, first + size), total: rows.length, page_size: size };
}
