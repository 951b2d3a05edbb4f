// Features by their descriptions, what they activate on, and how near their nearest feature is.

import {clear, counted, leftOut, make, meaning, newId, percent, sameToken, shareOf, short, styled, warning} from "./elements.js";
import {address, ask, exported, followAddress, takeAddress} from "./questions.js";

const SORTS = [["layer", "layer"], ["mse", "decoder MSE"], ["cost", "cost"], ["cosine", "cosine"],
  ["margin", "margin"], ["activation_frequency", "activation frequency"], ["quantile", "cost quantile"], ["activation_count", "activations"],
  ["phi", "φ"], ["lift", "lift"], ["active", "activations under φ"]];
const RANGE_FIELDS = SORTS.filter(([name]) => !["layer", "activation_count"].includes(name));
const MEASURED = ["phi", "lift", "active"]; // known of runs that were evaluated
const LEAST_FIRST = ["layer", "mse", "cost", "quantile"]; // of the others the greatest are of interest
const SHARE = "share"; // of a feature's activation that is on the token that is looked for

function field(label, control) {
  const id = newId("field");
  control.id = id;
  return make("div", {class: "field"}, make("label", {for: id}, label), control);
}

function text(name, asked, placeholder = "") {
  return make("input", {name, value: asked[name] ?? "", placeholder, autocomplete: "off", spellcheck: "false"});
}

function choice(name, asked, options, none) {
  const all = [...(none === undefined ? [] : [["", none]]), ...options];
  return make("select", {name}, all.map(([value, label]) =>
    make("option", {value, selected: (asked[name] ?? "") === value}, label)));
}

function rangeField([name, label], asked) {
  const ends = [["min", "least"], ["max", "most"]].map(([end, word]) =>
    make("input", {name: `${name}_${end}`, value: asked[`${name}_${end}`] ?? "", placeholder: word, inputmode: "decimal",
      autocomplete: "off", "aria-label": `${word} ${label}`}));
  return make("fieldset", {class: "range"}, make("legend", {}, label), ends);
}

// How an address without a sort or an order is meant, as search.py has it.
const usualSort = asked => (asked.activates_on ? SHARE : "layer");
const usualOrder = sort => (sort === SHARE ? "desc" : "asc");

function searchForm(asked, run) {
  const layers = run.saes.map(sae => [sae.key, `layer ${sae.key}`]);
  const others = run.strategies.filter(one => one !== run.main);
  const possible = ([name]) => run.corpora.length || !MEASURED.includes(name) || asked.sort === name;
  const sorts = [...(asked.activates_on ? [[SHARE, "share of the token"]] : []), ...SORTS.filter(possible)];
  const sort = asked.sort || usualSort(asked);
  const shown = {...asked, sort, order: asked.order || usualOrder(sort)};
  const more = ["status", "label", "pairs", "certain", "warnings", "strategy", "differs", ...RANGE_FIELDS.flatMap(([name]) =>
    [`${name}_min`, `${name}_max`])].some(name => asked[name]);
  const form = make("form", {class: "search", role: "search"},
    make("div", {class: "fields"},
      field("Description has", text("text", asked, "words, or 12/345")),
      field("Activates on the token", text("activates_on", asked, "Paris")),
      field("Top logits include", text("top_logits", asked, "France")),
      field("In", choice("layer", asked, layers, "all layers")),
      field("Sorted by", choice("sort", shown, sorts)),
      field("Order", choice("order", shown, [["asc", "least first"], ["desc", "most first"]])),
      make("button", {}, "Find")),
    make("details", {open: more}, make("summary", {}, "More filters"),
      make("div", {class: "fields"},
        field("Status", choice("status", asked, [["live", "live"], ["dead", "dead"], ["degenerate", "degenerate"]], "any")),
        field("Judge’s label", choice("label", asked, [["SAME", "SAME"], ["MAYBE", "MAYBE"], ["DIFFERENT", "DIFFERENT"]], "any")),
        field("Step", choice("pairs", asked, [["live", "both live"], ["left out", "not both live"], ["dies", "dies"], ["born", "born here"]], "any")),
        field("Warnings", choice("warnings", asked, [["none", "none"], ["some", "some"], ...run.warnings.map(kind => [kind, kind])], "any")),
        field("Pair is certain", choice("certain", asked, [["yes", "yes"], ["no", "no"]], "either")),
        others.length ? field("Nearest by", choice("strategy", asked, run.matchers.map(one => [one.name, one.label]))) : null,
        others.length ? field(`Where ${run.main} differs from`, choice("differs", asked, others.map(one => [one, one]), "–")) : null,
        RANGE_FIELDS.filter(possible).map(one => rangeField(one, asked)))));
  const go = () => {
    const given = Object.fromEntries(new FormData(form));
    // With a token its share is the order, unless somebody chose another; without it no longer.
    if (Boolean(given.activates_on) !== Boolean(asked.activates_on) && given.sort === usualSort(asked)) given.sort = given.order = "";
    if (given.order === usualOrder(given.sort || usualSort(given))) given.order = "";
    if (given.sort === usualSort(given)) given.sort = "";
    if (given.strategy === run.main) given.strategy = "";
    const named = (given.text ?? "").trim();
    const slash = named.lastIndexOf("/");
    // Also if there is no such layer: the answer names those there are.
    if (/^\S+\/\d+$/.test(named)) {
      location.hash = followAddress(named.slice(0, slash), named.slice(slash + 1));
    } else location.hash = address("find", given);
  };
  form.addEventListener("submit", event => {
    event.preventDefault();
    go();
  });
  for (const select of form.querySelectorAll("select")) {
    select.addEventListener("change", () => {
      if (select.name === "sort") form.elements.order.value = LEAST_FIRST.includes(select.value) ? "asc" : "desc";
      go();
    });
  }
  return form;
}

function cell(label, ...content) {
  return make("td", {"data-label": label}, content);
}

// What a feature is where it is not live.
export function notLive(status) {
  return status && status !== "live" ? make("span", {class: "warning"}, ` ${status}`) : null;
}

export function quantileBar(quantile) {
  return quantile === null ? null : styled(make("span", {class: "bar", title: `cost above that of ${percent(quantile)} of the live pairs`}),
    "--share", quantile.toFixed(3));
}

export function featureLink(key, feature) {
  return make("a", {class: "feature", href: followAddress(key, feature)}, `${key}/${feature}`);
}

export function labelMarks(labels) {
  return (labels ?? []).map(label => make("span", {class: `label ${label.toLowerCase()}`}, label));
}

// Why a feature is among those that activate on a token: how much, or that it peaks an example.
function onToken(row, token) {
  const share = shareOf(row, token);
  if (share !== null) return make("p", {class: "small quiet"}, `${percent(share)} of its activation is on this token`);
  return (row.peaks ?? []).some(one => sameToken(one, token))
    ? make("p", {class: "small quiet"}, "this token is the peak of one of its examples") : null;
}

function resultRow(row, measured, token) {
  const partner = row.partner === null
    ? make("span", {class: "quiet"}, !row.next ? "last layer" : row.matched === false ? "not known" : "nothing")
    : featureLink(row.next, row.partner);
  return make("tr", {},
    make("th", {scope: "row"}, featureLink(row.key, row.feature), notLive(row.status)),
    make("td", {class: "meaning"}, meaning(row, "no description"), token ? onToken(row, token) : null),
    cell("activation frequency", percent(row.activation_frequency, 2)),
    cell("nearest", partner, " ", labelMarks(row.labels), row.warnings?.length ? make("span", {class: "warning small"}, " warning") : null),
    cell("MSE", short(row.mse), " ", quantileBar(row.quantile)),
    cell("cosine", short(row.cosine, 2)),
    measured ? cell("φ", short(row.phi, 2), row.phi === null ? null : make("span", {class: "quiet small"}, ` of ${counted(row.active)}`)) : null,
    cell("margin", short(row.margin)));
}

export function paging(view, answer, asked) {
  const last = Math.min(answer.total, answer.offset + answer.limit);
  const link = (label, offset, possible) => (possible ? make("a", {href: address(view, {...asked, offset: offset || ""})}, label)
    : make("span", {class: "quiet"}, label));
  return make("nav", {class: "paging", "aria-label": "Pages of features"},
    link("← previous page", Math.max(0, answer.offset - answer.limit), answer.offset > 0),
    make("span", {}, answer.total ? `${counted(answer.offset + 1)}–${counted(last)} of ${counted(answer.total)}` : "none"),
    link("next page →", answer.offset + answer.limit, last < answer.total));
}

function takeAway(asked) {
  if (exported) return null;
  const {limit: _limit, offset: _offset, ...kept} = asked;
  return make("p", {class: "take"}, "Download all of them as ", [["csv", "CSV"], ["parquet", "Parquet"], ["json", "JSON"]]
    .map(([format, label], place) => [place ? ", " : "", make("a", {href: takeAddress(format, kept), download: ""}, label)]));
}

export async function showFind(place, asked, run) {
  place.append(make("h1", {}, "Find features"), searchForm(asked, run));
  const results = make("section", {"aria-label": "Features found", "aria-live": "polite"});
  place.append(results);
  let answer;
  try {
    answer = await ask("features", asked);
  } catch (error) {
    clear(results, warning(error.message));
    return;
  }
  const shared = run.matchers.some(one => one.name === answer.strategy && !one.one_to_one);
  const by = answer.strategy === run.main ? "" : `, by ${answer.strategy}`;
  const measured = run.corpora.length > 0 && !by;
  const notes = [answer.pending.length ? make("p", {class: "notice", role: "status"},
    `Not looked in yet, since they are being read: layers ${answer.pending.join(", ")}.`) : null, leftOut(answer.problems)];
  if (!answer.total) {
    const lack = run.missing.find(one => one.makes === "describe");
    clear(results, notes, make("p", {}, "No feature matches. Try fewer filters; words are searched in descriptions as written, "
      + "tokens as a whole."), lack ? make("p", {}, lack.what, " ", make("code", {}, lack.command)) : null);
    return;
  }
  clear(results, notes,
    make("div", {class: "above"}, paging("find", answer, asked), takeAway(asked)),
    make("table", {class: "found"},
      make("caption", {class: "quiet"}, `Nearest: the feature of the next layer ${shared ? "that is nearest, which others may share" : "under a one-to-one matching"}${by}.`
        + (by ? "" : " The bar: how many of the live pairs cost at most as much. Warning: follow the feature to read why."
          + (measured ? " φ is over as many activations of the feature as it says: if they are few it means little." : ""))
        + (by && asked.warnings ? ` Warnings are about the ${run.main} step.` : "")),
      make("thead", {}, make("tr", {}, ["feature", "described as", "activation frequency", "nearest", "MSE", "cosine", ...(measured ? ["φ"] : []), "margin"]
        .map(name => make("th", {scope: "col"}, name)))),
      make("tbody", {}, answer.features.map(row => resultRow(row, measured, asked.activates_on)))),
    answer.total > answer.limit ? paging("find", answer, asked) : null);
}
