// What becomes of a feature: the path that agrees with its start, branches where a member of it splits, and joins where
// other features have one of it as a partner too.

import {drawn, make, meaning, tableOf, warning} from "./elements.js";
import {ask, followAddress} from "./questions.js";
import {featureLink} from "./find.js";

const COLUMN = 208, WIDE = 118, HIGH = 26, LANE = 34, SHOWN = 3, TOP = 24;

// As the sentences of the server have them: .80, never 0 or 1.
export function probable(value) {
  if (value === null || value === undefined) return "";
  if (value < 0.005) return "<.01";
  return value >= 0.995 ? ">.99" : value.toFixed(2).replace(/^0/, "");
}

const nameOf = one => `${one.key}/${one.feature}`;
const other = (list, member) => list.filter(one => !member || nameOf(one) !== nameOf(member));

function node(one, x, y, kind, label) {
  return drawn("a", {href: followAddress(one.key, one.feature), class: `node ${kind}`, "aria-label": label},
    drawn("rect", {x, y: y - HIGH / 2, width: WIDE, height: HIGH, rx: 6}),
    drawn("text", {x: x + 8, y: y + 4}, nameOf(one)),
    kind === "member" ? null : drawn("text", {x: x + WIDE - 8, y: y + 4, class: "sure"}, probable(one.probability)),
    drawn("title", {}, label));
}

function edge(from, to, probability, kind) {
  const middle = (from.x + WIDE + to.x) / 2;
  return drawn("path", {class: `edge ${kind}`, "stroke-width": 1 + 4 * (probability ?? 0),
    d: `M${from.x + WIDE},${from.y} C${middle},${from.y} ${middle},${to.y} ${to.x},${to.y}`});
}

// Columns are layers.  Below the path stand the other partners of the member before, above it those other
// features whose partner is the member after.
function chart(answer) {
  const path = answer.path;
  const joins = path.map((one, place) => other(one.origins, path[place - 1]));
  const branches = path.map((one, place) => other(one.partners, path[place + 1]));
  const rows = list => Math.max(0, ...list.map(some => Math.min(some.length, SHOWN) + (some.length > SHOWN ? 1 : 0)));
  const above = rows(joins), below = rows(branches);
  const first = joins[0].length ? 1 : 0;
  const x = place => 8 + (place + first) * COLUMN;
  const main = TOP + above * LANE + HIGH / 2 + 6;
  const width = x(path.length - 1) + WIDE + 8, height = main + HIGH / 2 + 22 + below * LANE;
  const at = path.map((_, place) => ({x: x(place), y: main}));
  const edges = [], nodes = [];
  const side = (list, place, column, up, kind, label) => {
    const lane = n => main + (up ? -1 : 1) * ((n + 1) * LANE + (up ? 0 : 14));
    list.slice(0, SHOWN).forEach((one, n) => {
      const spot = {x: x(column), y: lane(n)};
      edges.push(up ? edge(spot, at[place], one.probability, kind) : edge(at[place], spot, one.probability, kind));
      nodes.push(node(one, spot.x, spot.y, kind, `${nameOf(one)}, probability ${probable(one.probability)}: ${label}`));
    });
    if (list.length > SHOWN) nodes.push(drawn("text", {x: x(column) + 8, y: lane(SHOWN) + 4, class: "more"}, `and ${list.length - SHOWN} more`));
  };
  path.forEach((one, place) => {
    side(joins[place], place, place - 1, true, "join", `${nameOf(one)} is its partner too`);
    side(branches[place], place, place + 1, false, "branch", `another partner of ${nameOf(one)}`);
    const before = path[place - 1];
    if (before) {
      edges.push(edge(at[place - 1], at[place], one.probability, "along"));
      nodes.push(drawn("text", {x: (at[place - 1].x + WIDE + at[place].x) / 2, y: main + 4, class: "sure middle"}, probable(one.probability)));
    }
    const sure = before && one.probability !== null ? `, probability ${probable(one.probability)} to be the same as ${nameOf(before)}` : "";
    nodes.push(node(one, x(place), main, place === answer.here ? "member here" : "member", `${nameOf(one)}${sure}${one.fate ? `; ${one.fate}` : ""}`));
    if (one.fate) nodes.push(drawn("text", {x: x(place) + 8, y: main + HIGH / 2 + 14, class: `fate ${one.fate.replace(" ", "-")}`}, one.fate));
  });
  const layers = [...(first ? [path[0].before] : []), ...path.map(one => one.key)].map((key, place) =>
    drawn("text", {x: 8 + place * COLUMN + 8, y: 14, class: "axis start"}, `layer ${key}`));
  return make("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": "The path with its branches and joins"},
    drawn("svg", {viewBox: `0 0 ${width} ${height}`, width, height, role: "group", class: "becoming",
      "aria-label": "The path that agrees with its start, layer by layer; the table below says the same"}, edges, layers, nodes));
}

function listed(others) {
  if (!others.length) return "–";
  return others.map((one, place) => [place ? ", " : "", featureLink(one.key, one.feature), ` ${probable(one.probability)}`]);
}

function asTable(answer, run) {
  const rows = answer.path.map((one, place) => make("tr", {"aria-current": place === answer.here ? "true" : null},
    make("th", {scope: "row"}, featureLink(one.key, one.feature)),
    make("td", {class: "meaning"}, meaning(one, run.sources.length ? "no description" : "not described yet")),
    make("td", {}, place ? probable(one.probability) || "not known" : "–"),
    make("td", {}, place ? probable(one.start_probability) || "not known" : "–"),
    make("td", {class: "left others"}, one.fate && one.fate !== "unknown" ? `${one.fate}${one.partners.length ? ": " : ""}` : one.following ? "not known" : "–",
      one.partners.length ? listed(one.partners) : null),
    make("td", {class: "left others"}, one.born ? "born here" : listed(one.origins))));
  return make("details", {open: true}, make("summary", {}, "The same as a table, with descriptions"),
    tableOf("The path and what becomes of its members", ["feature", "meaning", "same as before", "same as the start", "becomes", "comes from"],
      rows, "members"));
}

export async function becomingOf(feature, run) {
  const answer = await ask("becomes", {feature});
  const section = make("section", {class: "becomes"}, make("h2", {}, "What becomes of it"),
    answer.problems.map(why => warning(why)),
    answer.sentence ? make("p", {class: "answer"}, answer.sentence) : null);
  if (answer.path.length > 1) {
    section.append(make("p", {class: "quiet small"}, "Along the middle: the path whose members agree with its start and with each other. "
      + "Downwards branch the other partners of a feature; from above join other features with the same partner. Numbers: probability, from the weights, that two "
      + "features are the same (φ at least 0.3 on text)."), chart(answer), asTable(answer, run));
  }
  return section;
}
