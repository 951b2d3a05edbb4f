// The page: one view at a time, by the address; the run is looked at again while it changes.

import {clear, make} from "./elements.js";
import {address, currentRoute} from "./route.js";
import {ask, exported} from "./questions.js";
import {showNotices} from "./notices.js";
import {startTheme} from "./theme.js";
import {showFind} from "./find.js";
import {showFollow} from "./follow.js";
import {showWhole} from "./whole.js";
import {showCompare} from "./compare.js";
import {showRuns} from "./runs.js";

const VIEWS = [
  ["find", "Find", showFind],
  ["follow", "Follow", showFollow],
  ["whole", "Whole", showWhole],
  ["compare", "Compare", showCompare],
  ["runs", "Two runs", showRuns],
];
const POLL_MILLISECONDS = 2000;
const main = document.getElementById("main");
let run = null;
let shown = 0;

function navigate() {
  const {view} = currentRoute();
  clear(document.getElementById("views"), VIEWS.filter(([name]) => name !== "runs" || run.second).map(([name, label]) =>
    make("a", {href: address(name), "aria-current": name === view ? "page" : null}, label)));
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
    place.append(make("p", {class: "notice warning", role: "alert"}, error.message, again));
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
    clear(document.getElementById("notices"), make("p", {class: "notice warning", role: "alert"}, error.message));
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
    clear(main, make("p", {class: "notice warning", role: "alert"}, error.message));
    return;
  }
  showNotices(document.getElementById("notices"), run);
  await show();
  if (!exported) setInterval(look, POLL_MILLISECONDS);
}

start();
