// Two runs over the same SAEs: where the partner of a feature differs.

import {make} from "./elements.js";
import {ask} from "./questions.js";
import {counted, percent, plural, short} from "./numbers.js";
import {featureLink} from "./find.js";
import {meaning} from "./tokens.js";
import {chooser, pagesOf, tableOf} from "./compare.js";

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
      + "in both; links follow it through the first run."), pagesOf("runs", answer, asked));
  if (!answer.features.length) return;
  const partner = (row, side) => make("td", {}, row[`partner_${side}`] === null ? "nothing" : featureLink(row.next, row[`partner_${side}`]),
    make("br"), make("span", {class: "quiet small"}, `MSE ${short(row[`mse_${side}`])}`));
  place.append(tableOf("Features whose partners differ", ["feature", "described as", "one", "the other"], answer.features.map(row =>
    make("tr", {}, make("th", {scope: "row"}, featureLink(row.key, row.feature)),
      make("td", {class: "meaning"}, meaning(row, "no description")),
      partner(row, "one"), partner(row, "other"))), "pairs"));
}
