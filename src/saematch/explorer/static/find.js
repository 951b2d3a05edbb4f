import { address, asForm, choice, el, featureLink, field, number, pager, percent, say } from "./dom.js";
import { ask, held } from "./source.js";

const COLUMNS = [["mse", "decoder MSE"], ["cosine", "cosine"], ["margin", "margin"], ["density", "density"], ["phi", "φ"]];

export async function find(about, asked) {
  const found = await ask("find", asked);
  say(`${found.total} features found`);
  const view = [el("h2", {}, "Find features"), theForm(about, asked)];
  if (!about.source) view.push(el("p", { class: "doubt" }, "This run has no descriptions yet; make them with: saematch describe ", about.directory));
  if (!found.rows.length) return [...view, el("p", {}, "No feature fits. Try fewer words, or wider ranges.")];
  view.push(el("p", { class: "quiet" }, "Values are of the step to the next layer: the partner that is nearest under a one-to-one matching."));
  return [...view, pager("find", asked, found.total, found.page_size), table(asked, found.rows), pager("find", asked, found.total, found.page_size), away(asked)];
}

function theForm(about, asked) {
  const any = [["", "any"]];
  const range = (name, label) => el("div", { class: "range" },
    field(`${label} from`, `${name}_min`, asked[`${name}_min`], { inputmode: "decimal" }), field("to", `${name}_max`, asked[`${name}_max`], { inputmode: "decimal", "aria-label": `${label} to` }));
  return asForm("find", { sort: asked.sort, descending: asked.descending },
    field("words in the description, or layer/feature", "text", asked.text, { class: "wide", placeholder: "capital cities, or 12/345" }),
    field("fires on or promotes", "token", asked.token, { placeholder: "a token" }),
    choice("layer", "key", asked.key, [...any, ...about.keys.map((key) => [key, key])]),
    choice("status", "status", asked.status, [...any, ["live", "live"], ["dead", "dead"], ["degenerate", "degenerate"]]),
    choice("judge's label", "label", asked.label, [...any, ["SAME", "SAME"], ["MAYBE", "MAYBE"], ["DIFFERENT", "DIFFERENT"]]),
    range("mse", "decoder MSE"), range("density", "density"), range("margin", "margin"),
    el("button", { class: "main" }, "Find"));
}

function table(asked, rows) {
  const sorted = asked.sort ?? "key", down = asked.descending === "1";
  const head = (name, text, kind) => {
    const next = { ...asked, sort: name, descending: sorted === name && !down ? "1" : "", page: "" };
    const order = sorted === name ? (down ? "descending" : "ascending") : "none";
    return el("th", { class: kind, "aria-sort": order, scope: "col" },
      el("button", { type: "button", onclick: () => { location.hash = address("find", next); } }, text, sorted === name ? (down ? " ↓" : " ↑") : ""));
  };
  const line = (row) => el("tr", {},
    el("td", {}, featureLink(row.key, row.feature), row.status === "live" ? null : ` (${row.status ?? "not matched"})`),
    el("td", { class: "text" }, row.text ?? el("span", { class: "quiet" }, "no description")),
    ...COLUMNS.map(([name]) => el("td", { class: "number" }, name === "density" ? percent(row[name]) : number(row[name]))),
    el("td", { class: `label-${row.label}` }, row.label ?? ""));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "features found" }, el("table", {},
    el("thead", {}, el("tr", {}, head("key", "feature", ""), el("th", { scope: "col" }, "description"), ...COLUMNS.map(([name, text]) => head(name, text, "number")), el("th", { scope: "col" }, "label"))),
    el("tbody", {}, ...rows.map(line))));
}

function away(asked) {
  if (held) return null;
  const query = new URLSearchParams(Object.entries(asked).filter(([name, value]) => value && name !== "view" && name !== "page"));
  const link = (form) => el("a", { href: `take/${form}?${query}`, download: `features.${form}` }, form);
  return el("p", {}, "Take this selection away (up to 5,000 features): ", link("csv"), " ", link("json"), " ", link("parquet"));
}
