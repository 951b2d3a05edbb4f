// Two strategies, or two runs, on the same features: where they disagree, and who is right.

import {counted, leftOut, make, meaning, percent, plural, short, styled, tableOf, warning} from "./elements.js";
import {address, ask, exported} from "./questions.js";
import {featureLink, labelMarks, paging} from "./find.js";

export function chooser(view, asked, fields) {
  return make("form", {class: "fields"}, fields.map(([name, label, options, value]) => {
    const select = make("select", {id: `choose-${name}`, name}, options.map(([key, text]) =>
      make("option", {value: key, selected: key === value}, text)));
    select.addEventListener("change", () => {
      location.hash = address(view, {...asked, [name]: select.value, offset: ""});
    });
    return make("div", {class: "field"}, make("label", {for: `choose-${name}`}, label), select);
  }));
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
  return answer.pairs.reduce((sum, row) => sum + row.judged * row[`label_${side}`], 0) / sums(answer).judged;
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
  const fields = [
    ["one", "One", names(answer.other), answer.one], ["other", "The other", names(answer.one), answer.other],
    ["layer", "Layers", [["", "all"], ...steps], asked.layer ?? ""],
    ...(measured ? [["corpus", "Text", run.corpora.map(one => [one, one]), answer.corpus]] : []),
    ["show", "Show", where, answer.show], ["sort", "Sorted by", sorts, answer.sort],
    ...(measured ? [["active", "Listed by score if active", [[0, "ever"], [10, "10 times"], [100, "100 times"], [1000, "1000 times"]], answer.active]] : []),
  ].filter(([name]) => !exported || name === "other"); // a file carries the pages of these
  const last = Math.min(answer.total, answer.offset + answer.limit);
  place.append(chooser("compare", asked, fields), inWords(answer, run), ...answer.left_out.map(why => warning(why)), ...leftOut(answer.problems),
  tableOf("Counts for every two layers", ["layers", "live features", "same partner", "differ", `${answer.one} more`, `${answer.other} more`, "shares",
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
  make("h2", {}, "Features"), exported ? make("p", {class: "quiet"}, `The first ${counted(last)} of ${counted(answer.total)}.`)
    : paging("compare", answer, asked));
  if (!answer.features.length) return;
  place.append(tableOf("Features and their partners", ["feature", "described as", answer.one, answer.other],
    answer.features.map(row => make("tr", {}, make("th", {scope: "row"}, featureLink(row.key, row.feature)),
      make("td", {class: "meaning"}, meaning(row, "no description")),
      partner(row, "one"), partner(row, "other"))), "pairs"));
}

// A setting as people write it.
function shown(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return value.length ? value.map(one => (Array.isArray(one) ? one.join("–") : shown(one))).join(", ") : "none";
  if (typeof value === "object") return Object.entries(value).map(([name, one]) => `${name} ${shown(one)}`).join(", ");
  return String(value);
}

export async function showRuns(place, asked, run) {
  place.append(make("h1", {}, "Compare two runs"));
  const answer = await ask("runs", asked);
  place.append(make("p", {}, "One: ", make("code", {}, run.directory), make("br"), "The other: ", make("code", {}, run.second.directory)));
  if (!answer.pairs.length) {
    place.append(make("p", {}, "The two runs match no two SAEs that are the same by their sha256, so there is nothing to compare."));
    return;
  }
  place.append(chooser("runs", asked, [
    ["one", "Strategy of the one", run.matchers.map(one => [one.name, one.label]), answer.one],
    ["other", "Strategy of the other", run.second.matchers.map(one => [one.name, one.label]), answer.other],
    ["layer", "Layers", [["", "all"], ...answer.pairs.map(row => [row.a, `${row.a} → ${row.b}`])], asked.layer ?? ""]]));
  if (answer.settings.length) {
    place.append(make("details", {}, make("summary", {}, plural(answer.settings.length, "differing setting")),
      make("ul", {}, answer.settings.map(one => make("li", {}, make("b", {}, one.setting.replaceAll("_", " ")), `: ${shown(one.one)} and ${shown(one.other)}`)))));
  }
  const features = answer.pairs.reduce((sum, row) => sum + row.features, 0), same = answer.pairs.reduce((sum, row) => sum + row.same, 0);
  place.append(make("p", {class: "answer"}, `The two runs pair ${percent(features ? same / features : null)} of ${plural(features, "live feature")} with the same partner.`),
    tableOf("Counts for every two layers", ["layers", "live features", "same partner", "differ", "paired by both",
      "decoder MSE, one", "decoder MSE, other"],
      answer.pairs.map(row => make("tr", {}, make("th", {scope: "row"}, `${row.a} → ${row.b}`),
        [row.features, row.same, row.differ, row.compared].map(count => make("td", {}, counted(count))),
        [row.mse_one, row.mse_other].map(value => make("td", {}, short(value)))))),
    make("p", {class: "quiet small"}, "Decoder MSE: mean over the same live features, those that both runs pair; "
      + "a feature that one of the runs leaves unmatched differs."),
    make("h2", {}, "Where they differ"), make("p", {class: "quiet small"}, "The SAEs are the same, so a partner is the same feature "
      + "in both; links follow it through the first run."), paging("runs", answer, asked));
  if (!answer.features.length) return;
  const partner = (row, side) => make("td", {}, row[`partner_${side}`] === null ? "nothing" : featureLink(row.next, row[`partner_${side}`]),
    make("br"), make("span", {class: "quiet small"}, `MSE ${short(row[`mse_${side}`])}`));
  place.append(tableOf("Features whose partners differ", ["feature", "described as", "one", "the other"], answer.features.map(row =>
    make("tr", {}, make("th", {scope: "row"}, featureLink(row.key, row.feature)),
      make("td", {class: "meaning"}, meaning(row, "no description")),
      partner(row, "one"), partner(row, "other"))), "pairs"));
}
