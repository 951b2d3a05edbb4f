// What the run lacks and which command makes it; files that cannot be used; an index that is being made.

import {clear, make} from "./elements.js";
import {plural} from "./numbers.js";

export function showNotices(place, run) {
  const opened = [...place.querySelectorAll("details")].map(one => one.open);
  const found = [];
  for (const [which, one] of [["", run], ["In the second run: ", run.second]]) {
    if (!one) continue;
    for (const problem of one.problems) found.push(make("p", {class: "notice warning", role: "alert"}, `${which}${problem}. The rest is shown.`));
    for (const judge of one.judges.filter(judge => !judge.passes_controls)) {
      found.push(make("p", {class: "notice warning"}, `${which}do not trust the labels of ${judge.judge} (experiment ${judge.experiment}): ${judge.verdict}`));
    }
    if (one.index.ready < one.index.of) {
      found.push(make("p", {class: "notice", role: "status"},
        `${which}reading the run for the first time: ${one.index.ready} of ${one.index.of} layers`));
    }
    const lacks = one.missing.map(lack => make("li", {}, lack.what, " ", make("code", {}, lack.command)));
    if (lacks.length) {
      const count = lacks.length === 1 ? "one thing is" : `${lacks.length} things are`;
      const open = opened.shift() ?? (!which && lacks.length > 2); // as the reader left it
      found.push(make("details", {class: "notice", open},
        make("summary", {}, which ? `${which}${count} missing` : `${count[0].toUpperCase()}${count.slice(1)} missing in this run`),
        make("ul", {}, lacks)));
    }
  }
  if (run.carried) {
    found.push(make("p", {class: "notice"}, `This file carries ${plural(run.carried.features, "feature")} of ${plural(run.carried.paths, "path")}; `
      + "counts of the whole run and of strategies are of all its features."));
  }
  clear(place, found);
}
