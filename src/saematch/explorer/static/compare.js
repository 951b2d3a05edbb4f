import { asForm, choice, el, featureLink, number, pager, say } from "./dom.js";
import { ask, held } from "./source.js";

export async function compare(about, asked) {
  const view = [el("h2", {}, "Compare strategies")];
  if (held) return [...view, el("p", {}, "Comparing is not in an exported file; it needs: saematch explore DIR")];
  const usable = about.strategies.filter((one) => !one.includes("composition"));
  if (usable.length < 2 || !about.pairs.length) return [...view, el("p", {}, "This run has fewer than two strategies to compare; saematch run --strategies makes more.")];
  const chosen = { first: "folded", second: usable.find((one) => one === "unfolded") ?? usable[1], pair: about.pairs[0].join("--"), ...asked };
  const found = await ask("compare", chosen);
  say(`${found.total} features with different partners`);
  const names = usable.map((one) => [one, one]);
  view.push(asForm("compare", {},
    choice("layers", "pair", chosen.pair, about.pairs.map((pair) => [pair.join("--"), pair.join(" → ")])),
    choice("strategy", "first", chosen.first, names), choice("against", "second", chosen.second, names),
    el("button", { class: "main" }, "Compare")));
  if (found.missing) return [...view, el("p", { class: "doubt" }, "One of the two matchings is not there yet.")];
  view.push(summary(found), found.rows.length ? table(found) : el("p", {}, "All live features have the same partner under both."));
  if (found.rows.length) view.push(pager("compare", chosen, found.total, 50));
  if (about.other) view.push(...await otherRun(about));
  return view;
}

function summary(found) {
  const facts = [["live features", found.live], ["with different partners", found.apart]];
  if (found.scored) facts.push([`of these fire more often together under ${found.first}`, found.first_better], [`under ${found.second}`, found.second_better], ["equally often", found.alike]);
  const list = el("dl", { class: "counts" }, ...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, number(value))]));
  const note = found.scored ? "Matching score: share of a feature's firings on which its partner fires too; mean over corpora." : "Who is right by matching score is not known: saematch evaluate has not measured these strategies.";
  return el("div", {}, list, el("p", { class: "quiet" }, note));
}

function table(found) {
  const [a, b] = found.pair.split("--");
  const partner = (row, which) => el("td", { class: "text" }, featureLink(b, row[`${which}_partner`]), ` score ${number(row[`${which}_score`])}, φ ${number(row[`${which}_phi`])}, cost ${number(row[`${which}_cost`])}`, row[`${which}_text`] ? el("div", { class: "quiet" }, row[`${which}_text`]) : null);
  const line = (row) => el("tr", {}, el("td", { class: "text" }, featureLink(a, row.feature), row.text ? el("div", { class: "quiet" }, row.text) : null), partner(row, "first"), partner(row, "second"));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "features with different partners" }, el("table", {},
    el("thead", {}, el("tr", {}, ...["feature", found.first, found.second].map((text) => el("th", { scope: "col" }, text)))), el("tbody", {}, ...found.rows.map(line))));
}

async function otherRun(about) {
  const found = await ask("runs");
  const line = (row) => el("tr", {}, el("td", {}, `${row.a} → ${row.b}`), el("td", { class: "number" }, number(row.alike)), el("td", { class: "number" }, number(row.live)));
  return [el("h2", {}, `${about.directory} against ${about.other}`),
    found.pairs.length ? el("table", {}, el("thead", {}, el("tr", {}, ...["step", "same partner", "live features"].map((text, place) => el("th", { scope: "col", class: place ? "number" : "" }, text)))), el("tbody", {}, ...found.pairs.map(line))) : el("p", {}, "The two runs share no pair of the same SAEs."),
    found.not_the_same.length ? el("p", { class: "quiet" }, `Other SAEs in the other run: ${found.not_the_same.join(", ")}`) : null];
}
