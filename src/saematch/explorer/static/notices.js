// What the run lacks and which command makes it; files that cannot be used; an index that is being made.

import {clear, make} from "./elements.js";
import {counted, plural} from "./numbers.js";

export function showNotices(place, run) {
  const open = place.querySelector("details")?.open;
  const found = [];
  for (const [which, one] of [["", run], ["In the second run: ", run.second]]) {
    if (!one) continue;
    for (const problem of one.problems) found.push(make("p", {class: "notice doubt", role: "alert"}, `${which}${problem}. The rest is shown.`));
    for (const judge of one.judges.filter(judge => !judge.tells)) {
      found.push(make("p", {class: "notice doubt"}, `${which}do not trust the labels of ${judge.judge} (experiment ${judge.experiment}): ${judge.verdict}`));
    }
    if (one.index.ready < one.index.of) {
      found.push(make("p", {class: "notice", role: "status"},
        `${which}reading the run for the first time: ${one.index.ready} of ${one.index.of} layers`));
    }
    const lacks = one.missing.map(lack => make("li", {}, lack.what, " ", make("code", {}, lack.command)));
    if (lacks.length) {
      found.push(make("details", {class: "notice", open: open ?? lacks.length > 2},
        make("summary", {}, `${which}${lacks.length === 1 ? "one thing is" : `${lacks.length} things are`} missing in this run`),
        make("ul", {}, lacks)));
    }
  }
  if (run.carried) {
    found.push(make("p", {class: "notice"}, `This file carries ${counted(run.carried.features)} features of ${plural(run.carried.paths, "path")}; `
      + "counts of the whole run and of strategies are of all its features."));
  }
  clear(place, found);
}
