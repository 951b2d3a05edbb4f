// Two strategies on the same features: where they disagree, and who is right.

import {make, styled} from "./elements.js";
import {address} from "./route.js";
import {ask, exported} from "./questions.js";
import {counted, percent, plural, short} from "./numbers.js";
import {featureLink, labelMarks} from "./find.js";
import {meaning} from "./tokens.js";

export function chooser(view, asked, fields) {
  const possible = fields.filter(([name]) => !exported || name === "other"); // a file carries the pages of these
  return make("form", {class: "fields"}, possible.map(([name, label, options, value]) => {
    const select = make("select", {id: `choose-${name}`, name}, options.map(([key, text]) =>
      make("option", {value: key, selected: key === value}, text)));
    select.addEventListener("change", () => {
      location.hash = address(view, {...asked, [name]: select.value, offset: ""});
    });
    return make("div", {class: "field"}, make("label", {for: `choose-${name}`}, label), select);
  }));
}

export function pagesOf(view, answer, asked) {
  const last = Math.min(answer.total, answer.offset + answer.limit);
  if (exported) return make("p", {class: "quiet"}, `The first ${counted(last)} of ${counted(answer.total)}.`);
  const link = (label, offset, possible) => (possible ? make("a", {href: address(view, {...asked, offset: offset || ""})}, label)
    : make("span", {class: "quiet"}, label));
  return make("nav", {class: "paging", "aria-label": "Pages of features"},
    link("← before", Math.max(0, answer.offset - answer.limit), answer.offset > 0),
    make("span", {}, answer.total ? `${counted(answer.offset + 1)}–${counted(last)} of ${counted(answer.total)}` : "none"),
    link("next →", answer.offset + answer.limit, last < answer.total));
}

export function tableOf(label, head, rows, className = "") {
  return make("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": label},
    make("table", {class: className}, make("thead", {}, make("tr", {}, head.map(name => make("th", {scope: "col"}, name)))),
      make("tbody", {}, rows)));
}

function shares(row) {
  const parts = [["one", row.for_one], ["tie", row.ties], ["other", row.for_other]];
  return make("span", {class: "shares"}, parts.map(([kind, count]) =>
    styled(make("span", {class: kind}), "--share", String(row.differ ? count / row.differ : 0))));
}

function sums(answer) {
  return answer.pairs.reduce((all, row) => Object.fromEntries(["features", "same", "differ", "for_one", "for_other", "ties",
    "unmeasured", "judged", "judged_same", "judge_one", "judge_other"]
    .map(name => [name, (all[name] ?? 0) + row[name]])), {});
}

// Over all features that were judged under both.
function meanLabel(answer, side) {
  const judged = answer.pairs.filter(row => row.judged);
  const all = judged.reduce((sum, row) => sum + row.judged, 0);
  return judged.reduce((sum, row) => sum + row.judged * row[`label_${side}`], 0) / all;
}

function inWords(answer, run) {
  const all = sums(answer);
  const text = make("p", {class: "answer"}, make("b", {}, answer.one), " and ", make("b", {}, answer.other),
    ` pair ${percent(all.features ? all.same / all.features : null)} of ${plural(all.features, "live feature")} with the same partner. `);
  if (answer.corpus && all.for_one + all.for_other + all.ties) {
    text.append(`Where they differ, the partner by ${answer.one} is active together with the feature more often in ${counted(all.for_one)}, `
      + `that by ${answer.other} in ${counted(all.for_other)}, equally often in ${counted(all.ties)} (text: ${answer.corpus}); ${counted(all.unmeasured)} were not measured. `);
  } else text.append("How often partners are active together was not measured for these two", ...commandFor("evaluate", run), ". ");
  if (all.judged) {
    text.append(`${answer.judges.map(one => one.split("/")[1]).filter((one, place, all) => all.indexOf(one) === place).join(" and ")} `
      + `labelled the partners by both of ${plural(all.judged, "feature")}, equal in ${counted(all.judged_same)}: mean label `
      + `${short(meanLabel(answer, "one"))} by ${answer.one} and ${short(meanLabel(answer, "other"))} by ${answer.other} (1 DIFFERENT, 3 SAME); where they differ, the partner by ${answer.one} is called `
      + `more alike in ${counted(all.judge_one)}, that by ${answer.other} in ${counted(all.judge_other)}.`);
  } else text.append("No judge has labelled pairs of both", ...commandFor("judge", run), ".");
  return text;
}

function commandFor(makes, run) {
  const lack = run.missing.find(one => one.makes === makes);
  return lack ? [": ", make("code", {}, lack.command)] : [];
}

function partner(row, side) {
  const to = row[`partner_${side}`];
  return make("td", {}, to === null ? make("span", {class: "quiet"}, "nothing") : featureLink(row.next, to),
    labelMarks(row[`labels_${side}`]).map(mark => [" ", mark]),
    make("br"), make("span", {class: "quiet small"}, `MSE ${short(row[`mse_${side}`])}, cosine ${short(row[`cosine_${side}`], 2)}`),
    row[`activation_count_${side}`] === null ? null : [make("br"), make("span", {class: "small"},
      `score ${short(row[`score_${side}`], 2)}, φ ${short(row[`phi_${side}`], 2)}`, side === "one" ? ` of ${plural(row.activation_count_one, "activation")}` : "")]);
}

export async function showCompare(place, asked, run) {
  place.append(make("h1", {}, "Compare strategies"));
  if (run.strategies.length < 2) {
    place.append(make("p", {}, "This run has one strategy; saematch run makes the others by --strategies."));
    return;
  }
  const answer = await ask("compare", asked);
  const names = except => run.matchers.filter(one => one.name !== except).map(one => [one.name, one.label]);
  const shared = run.matchers.filter(one => !one.one_to_one).map(one => one.label);
  const steps = run.chains.flatMap(chain => chain.slice(0, -1).map((key, place) => [key, `${key} → ${chain[place + 1]}`]));
  const measured = run.corpora.length > 0;
  const where = [["differ", "where they differ"],
    ...(measured ? [["one", `where ${answer.one}’s is active together more`], ["other", `where ${answer.other}’s is active together more`]] : []),
    ...(answer.judged ? [["judge_one", `where ${answer.one}’s is called more alike`], ["judge_other", `where ${answer.other}’s is called more alike`]] : []),
    ["same", "where they agree"], ["all", "all"]];
  const sorts = [...(measured ? [["difference", "difference of scores"]] : []), ...(answer.judged ? [["labels", "difference of labels"]] : []),
    ["mse", "decoder MSE"], ["layer", "layer"]];
  place.append(chooser("compare", asked, [
    ["one", "One", names(answer.other), answer.one], ["other", "The other", names(answer.one), answer.other],
    ["layer", "Layers", [["", "all"], ...steps], asked.layer ?? ""],
    ...(measured ? [["corpus", "Text", run.corpora.map(one => [one, one]), answer.corpus]] : []),
    ["show", "Show", where, answer.show], ["sort", "Sorted by", sorts, answer.sort],
    ...(measured ? [["active", "Listed by score if active", [[0, "ever"], [10, "10 times"], [100, "100 times"], [1000, "1000 times"]], answer.active]] : []),
  ]), inWords(answer, run));
  for (const why of answer.left_out) place.append(make("p", {class: "notice warning", role: "alert"}, why));
  for (const [key, why] of Object.entries(answer.problems)) place.append(make("p", {class: "notice warning", role: "alert"}, `Layer ${key} is left out: ${why}`));
  place.append(tableOf("Counts for every two layers", ["layers", "live features", "same partner", "differ", `${answer.one} more`, `${answer.other} more`, "shares",
    `score, ${answer.one}`, `score, ${answer.other}`, `φ, ${answer.one}`, `φ, ${answer.other}`,
    ...(answer.judged ? ["judged", `label, ${answer.one}`, `label, ${answer.other}`] : [])],
  answer.pairs.map(row => make("tr", {}, make("th", {scope: "row"}, `${row.a} → ${row.b}`),
    [row.features, row.same, row.differ].map(count => make("td", {}, counted(count))),
    [row.for_one, row.for_other].map(count => make("td", {}, row.differ > row.unmeasured ? counted(count) : "–")),
    make("td", {}, row.differ > row.unmeasured ? shares(row) : null),
    [row.score_one, row.score_other, row.phi_one, row.phi_other].map(value => make("td", {}, short(value, 2))),
    answer.judged ? [make("td", {}, counted(row.judged)), [row.label_one, row.label_other].map(value => make("td", {}, short(value)))] : null))),
  make("p", {class: "quiet small"}, "Score: the share of a feature’s activations on which its partner is active too, mean over features. "
    + (shared.length ? `Not one-to-one, so that many features may share a partner: ${shared.join(", ")}. ` : "")
    + "Always-on partners flatter the score, φ less so. "
    + (answer.judged ? "Label: mean over features whose partners by both were labelled in one experiment, 1 (DIFFERENT) to 3 (SAME)." : "")),
  make("h2", {}, "Features"), pagesOf("compare", answer, asked));
  if (!answer.features.length) return;
  place.append(tableOf("Features and their partners", ["feature", "described as", answer.one, answer.other],
    answer.features.map(row => make("tr", {}, make("th", {scope: "row"}, featureLink(row.key, row.feature)),
      make("td", {class: "meaning"}, meaning(row, "no description")),
      partner(row, "one"), partner(row, "other"))), "pairs"));
}
