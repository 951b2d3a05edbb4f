import { address, el, say } from "./dom.js";
import { ask } from "./source.js";
import { find } from "./find.js";
import { follow } from "./follow.js";
import { whole } from "./whole.js";
import { compare } from "./compare.js";

const VIEWS = { find, follow, whole, compare };
const NAMES = [["whole", "The whole"], ["find", "Find"], ["compare", "Compare"]];
let about = null, latest = 0;

function theme(start) {
  const root = document.documentElement;
  if (start) root.classList.toggle("dark", matchMedia("(prefers-color-scheme: dark)").matches);
  else root.classList.toggle("dark");
}

async function show() {
  const mine = ++latest, main = document.getElementById("main");
  if (location.hash === "#main") return;
  const { view = "whole", ...asked } = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  try {
    about ??= await ask("about");
    document.getElementById("suite").textContent = `${about.suite} · ${about.directory}`;
    document.getElementById("problems").replaceChildren(...about.problems.map((text) => el("p", { class: "doubt" }, text)));
    document.getElementById("views").replaceChildren(...NAMES.map(([name, text]) => el("a", { href: address(name), "aria-current": name === view ? "page" : null }, text)));
    const parts = await (VIEWS[view] ?? whole)(about, asked);
    if (mine !== latest) return;
    main.replaceChildren(...parts.filter(Boolean));
    document.getElementById("here")?.scrollIntoView({ block: "nearest", inline: "center" });
    document.title = `${main.querySelector("h2")?.textContent ?? "saematch"} · saematch explorer`;
  } catch (error) {
    if (mine !== latest) return;
    main.replaceChildren(el("h2", {}, "That did not work"), el("p", { class: "doubt" }, error.message), el("p", {}, el("a", { href: address("whole") }, "Back to the whole")));
    say(error.message);
  }
}

theme(true);
document.getElementById("theme").addEventListener("click", () => theme(false));
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); document.getElementById("main").focus(); });
addEventListener("hashchange", () => { show().then(() => scrollTo(0, 0)); });
show();
