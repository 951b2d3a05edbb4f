// The page: one view at a time, by the address; the run is looked at again while it changes.

import {clear, make, plural, warning} from "./elements.js";
import {address, ask, currentRoute, exported} from "./questions.js";
import {showFind} from "./find.js";
import {showFollow} from "./follow.js";
import {showWhole} from "./whole.js";
import {showCompare, showRuns} from "./compare.js";

// Light and dark: as the system says, until the reader says otherwise.
const CHOICES = ["system", "light", "dark"];

function stored() {
  try {
    return localStorage.getItem("saematch-theme");
  } catch {
    return null; // a file opened from the disk may have no storage
  }
}

function startTheme(button) {
  let choice = CHOICES.includes(stored()) ? stored() : "system";
  const show = () => {
    if (choice === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = choice;
    button.textContent = `theme: ${choice}`;
  };
  button.addEventListener("click", () => {
    choice = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length];
    try {
      localStorage.setItem("saematch-theme", choice);
    } catch { /* it holds until the page is closed */ }
    show();
  });
  show();
}

// What the run lacks and which command makes it; files that cannot be used; an index that is being made.

function showNotices(place, run) {
  const opened = [...place.querySelectorAll("details")].map(one => one.open);
  const found = [];
  for (const [which, one] of [["", run], ["In the second run: ", run.second]]) {
    if (!one) continue;
    const said = words => (which ? which + words : words[0].toUpperCase() + words.slice(1));
    for (const problem of one.problems) found.push(warning(`${said(problem)}. The rest is shown.`));
    for (const judge of one.judges.filter(judge => !judge.passes_controls)) {
      found.push(make("p", {class: "notice warning"}, said(`do not trust the labels of ${judge.judge} (experiment ${judge.experiment}): ${judge.verdict}`)));
    }
    if (one.index.ready < one.index.of) {
      found.push(make("p", {class: "notice", role: "status"},
        said(`reading the run for the first time: ${one.index.ready} of ${one.index.of} layers`)));
    }
    const lacks = one.missing.map(lack => make("li", {}, lack.what, " ", make("code", {}, lack.command)));
    if (lacks.length) {
      const count = lacks.length === 1 ? "one thing is" : `${lacks.length} things are`;
      const open = opened.shift() ?? (!which && lacks.length > 2); // as the reader left it
      found.push(make("details", {class: "notice", open},
        make("summary", {}, said(`${count} missing${which ? "" : " in this run"}`)),
        make("ul", {}, lacks)));
    }
  }
  if (run.carried) {
    found.push(make("p", {class: "notice"}, `This file carries ${plural(run.carried.features, "feature")} of ${plural(run.carried.paths, "path")}; `
      + "counts of the whole run and of strategies are of all its features."));
  }
  clear(place, found);
}

const VIEWS = [
  ["find", "Find", showFind, "Features by what they mean, activate on and cost"],
  ["follow", "Follow", showFollow, "One feature through the layers"],
  ["whole", "Whole run", showWhole, "All features at once, layer by layer"],
  ["compare", "Compare", showCompare, "Two strategies on the same features"],
  ["runs", "Two runs", showRuns, "Where two runs over the same SAEs differ"],
];
const POLL_MILLISECONDS = 2000;
const main = document.getElementById("main");
let run = null;
let shown = 0;

function navigate() {
  const {view} = currentRoute();
  clear(document.getElementById("views"), VIEWS.filter(([name]) => name !== "runs" || run.second).map(([name, label, , what]) =>
    make("a", {href: address(name), title: what, "aria-current": name === view ? "page" : null}, label)));
}

// `quietly`: the run changed under a reader, whose place on the page must be kept.
async function show(quietly = false) {
  const turn = ++shown;
  const {view, parameters} = currentRoute();
  const known = VIEWS.find(([name]) => name === view);
  navigate();
  const place = make("div", {class: "view"});
  try {
    if (!known) throw new Error(`There is no view called “${view}”.`);
    await known[2](place, parameters, run);
  } catch (error) {
    const again = known && Object.keys(parameters).length ? [" ", make("a", {href: address(view)}, "Start again without it")] : null;
    place.append(warning(error.message, again));
  }
  if (turn !== shown) return; // the reader has gone on
  const field = main.contains(document.activeElement) ? document.activeElement.id : "";
  clear(main, place);
  main.dataset.shown = location.hash;
  document.title = `${place.querySelector("h1")?.textContent ?? "saematch"} – saematch explorer`;
  if (!quietly && turn > 1) {
    // Who changes one field after another stays at it.
    const same = field && document.getElementById(field);
    (same || main).focus({preventScroll: true});
    if (!same) scrollTo(0, 0);
  }
  place.dispatchEvent(new CustomEvent("shown"));
}

async function look() {
  try {
    const now = await ask("run");
    const changed = run !== null && JSON.stringify(now) !== JSON.stringify(run);
    run = now;
    document.getElementById("suite").textContent = run.suite + (exported ? " (exported)" : "");
    if (changed) {
      showNotices(document.getElementById("notices"), run);
      if (!main.contains(document.activeElement) || document.activeElement === main) await show(true);
    }
  } catch (error) {
    if (run === null) throw error;
    clear(document.getElementById("notices"), warning(error.message));
    run = {...run, failed: error.message};
  }
}

async function start() {
  startTheme(document.getElementById("theme"));
  document.getElementById("skip").addEventListener("click", event => {
    event.preventDefault(); // the address is the view's
    main.focus();
  });
  addEventListener("hashchange", () => show());
  try {
    await look();
  } catch (error) {
    clear(main, warning(error.message));
    return;
  }
  showNotices(document.getElementById("notices"), run);
  await show();
  if (!exported) setInterval(look, POLL_MILLISECONDS);
}

start();
