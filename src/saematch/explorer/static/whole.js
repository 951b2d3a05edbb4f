// The whole run: features flowing from layer to layer, and how near the pairs of every two layers are.

import {counted, drawn, make, percent, plural, short, styled, tableOf} from "./elements.js";
import {address, ask} from "./questions.js";
import {chooser} from "./compare.js";

const BANDS = ["q1", "q2", "q3", "q4", "left out", "dies", "unknown", "last"];
const WORDS = {q1: "cheapest quarter", q2: "second quarter", q3: "third quarter", q4: "most costly quarter",
  "left out": "not both live", dies: "dies: matched to nothing", unknown: "not known: not matched yet, or the file is left out", last: "no next layer"};
const HEIGHT = 300, BAR = 18, GAP = 3, TOP = 26;

function bandAddress(key, band, quarters) {
  const [low, middle, high] = quarters;
  const ranges = {q1: [null, low], q2: [low, middle], q3: [middle, high], q4: [high, null]};
  const [least, most] = ranges[band] ?? [null, null];
  const pairs = ranges[band] ? "live" : {"left out": "left out", dies: "dies"}[band];
  return address("find", {layer: key, pairs, cost_min: least, cost_max: most, sort: ranges[band] ? "cost" : ""});
}

// Where each band of a column stands, from its top.
function stacked(column, scale) {
  let y = TOP;
  const places = {};
  for (const band of BANDS) {
    const features = column.bands[band] ?? 0;
    if (!features) continue;
    places[band] = {y, height: features * scale, features};
    y += features * scale + GAP;
  }
  return places;
}

function ribbon(x1, y1, x2, y2, thick) {
  const middle = (x1 + x2) / 2;
  return `M${x1},${y1} C${middle},${y1} ${middle},${y2} ${x2},${y2} L${x2},${y2 + thick} C${middle},${y2 + thick} `
    + `${middle},${y1 + thick} ${x1},${y1 + thick} Z`;
}

function flowChart(answer, columns) {
  const step = Math.max(96, Math.min(180, 1180 / Math.max(1, columns.length - 1)));
  const most = Math.max(...columns.map(column => Object.values(column.bands).reduce((sum, one) => sum + one, 0)));
  const scale = HEIGHT / most;
  const x = Object.fromEntries(columns.map((column, place) => [column.key, 24 + place * step]));
  const places = Object.fromEntries(columns.map(column => [column.key, stacked(column, scale)]));
  const width = 48 + (columns.length - 1) * step + BAR, height = TOP + HEIGHT + 5 * GAP + (columns.some(column => column.born || column.bands.dies) ? 44 : 6);
  const used = {out: {}, in: {}};
  const order = band => BANDS.indexOf(band);
  const flows = answer.flows.filter(flow => places[flow.a] && places[flow.b])
    .sort((one, other) => order(one.from) - order(other.from) || order(one.to) - order(other.to));
  const ribbons = flows.map(flow => {
    const thick = flow.features * scale;
    const out = `${flow.a} ${flow.from}`, into = `${flow.b} ${flow.to}`;
    const from = places[flow.a][flow.from], to = places[flow.b][flow.to];
    if (!from || !to) return null;
    const y1 = from.y + (used.out[out] ?? 0), y2 = to.y + (used.in[into] ?? 0);
    used.out[out] = (used.out[out] ?? 0) + thick;
    used.in[into] = (used.in[into] ?? 0) + thick;
    return drawn("path", {class: `flow ${flow.from.replace(" ", "-")}`, d: ribbon(x[flow.a] + BAR, y1, x[flow.b], y2, thick)},
      drawn("title", {}, `${plural(flow.features, "feature")} of layer ${flow.a} (${WORDS[flow.from]}) to ${flow.b}, there: ${WORDS[flow.to]}`));
  });
  const bars = columns.map(column => [
    drawn("text", {x: x[column.key] + BAR / 2, y: 16, class: "axis"}, column.key),
    Object.entries(places[column.key]).map(([band, place]) => drawn("a",
      {href: bandAddress(column.key, band, answer.quarters), "aria-label":
        `layer ${column.key}, ${WORDS[band]}: ${plural(place.features, "feature")}`},
      drawn("rect", {class: `band ${band.replace(" ", "-")}`, x: x[column.key], y: place.y, width: BAR, height: Math.max(1, place.height)}),
      drawn("title", {}, `layer ${column.key}, ${WORDS[band]}: ${plural(place.features, "feature")}`))),
    column.born ? drawn("a", {href: address("find", {layer: column.key, pairs: "born"}), "aria-label":
      `layer ${column.key}: ${plural(column.born, "feature")} born`},
    drawn("text", {x: x[column.key] + BAR / 2, y: height - 24, class: "axis born"}, `+${counted(column.born)}`)) : null,
    column.bands.dies ? drawn("text", {x: x[column.key] + BAR / 2, y: height - 8, class: "axis dies"}, `−${counted(column.bands.dies)}`) : null,
  ]);
  return make("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": "Flows between layers"},
    drawn("svg", {viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label":
      "Features in each layer by the cost of their step to the next"}, ribbons, bars));
}

function bandLegend({quarters, columns}) {
  const ranges = {q1: `to ${short(quarters[0])}`, q2: `to ${short(quarters[1])}`, q3: `to ${short(quarters[2])}`, q4: `above ${short(quarters[2])}`};
  return make("ul", {class: "bands"}, BANDS.filter(band => columns.some(column => column.bands[band])).map(band =>
    make("li", {}, make("span", {class: `swatch ${band.replace(" ", "-")}`}), WORDS[band], ranges[band] ? `, cost ${ranges[band]}` : "")));
}

// Bars are links to the features behind them; arrows go from bar to bar, so that one is on the way of Tab.
function histogram(one, answer) {
  const width = 232, height = 96, base = 78;
  const most = Math.max(1, ...one.counts);
  const wide = width / Math.max(1, one.counts.length);
  const name = answer.measure === "mse" ? "decoder MSE" : "cost";
  const bars = one.counts.map((count, place) => {
    const [low, high] = [answer.edges[place], answer.edges[place + 1]];
    const label = `${one.a} to ${one.b}: ${plural(count, "pair")} with ${name} from ${short(low)} to ${short(high)}`;
    const tall = count ? Math.max(1.5, count / most * (base - 6)) : 0;
    return drawn("a", {href: address("find", {layer: one.a, pairs: "live", [`${answer.measure}_min`]: low,
      [`${answer.measure}_max`]: high, sort: answer.measure}), tabindex: "-1", "aria-label": label},
    drawn("rect", {class: "hit", x: place * wide, y: 0, width: wide, height: base}),
    drawn("rect", {class: "bar-mark", x: place * wide + 0.5, y: base - tall, width: Math.max(1, wide - 1), height: tall}),
    drawn("title", {}, label));
  });
  bars[one.counts.indexOf(most)]?.setAttribute("tabindex", "0");
  const middle = one.median === null || !(one.median > 0) || answer.edges.length < 2 ? null
    : Math.log(one.median / answer.edges[0]) / Math.log(answer.edges.at(-1) / answer.edges[0]) * width;
  const chart = drawn("svg", {viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": `${name} of the pairs ${one.a} to ${one.b}`},
    bars, drawn("line", {class: "base", x1: 0, x2: width, y1: base, y2: base}),
    middle === null ? null : drawn("line", {class: "median", x1: middle, x2: middle, y1: 2, y2: base}),
    drawn("text", {x: 0, y: height - 4, class: "axis start"}, short(answer.edges[0])),
    drawn("text", {x: width, y: height - 4, class: "axis end"}, short(answer.edges.at(-1))));
  chart.addEventListener("keydown", event => {
    const by = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    const next = bars[bars.indexOf(document.activeElement) + by];
    if (!by || !next) return;
    event.preventDefault();
    for (const bar of bars) bar.setAttribute("tabindex", bar === next ? "0" : "-1");
    next.focus();
  });
  return make("figure", {}, make("figcaption", {}, make("b", {}, `${one.a} → ${one.b}`), make("span", {class: "quiet"}, ` median ${short(one.median)}`)), chart);
}

function asTable(columns) {
  return make("details", {}, make("summary", {}, "The same as a table"),
    tableOf("Features by layer and cost", ["layer", ...BANDS.map(band => WORDS[band]), "born"], columns.map(column => make("tr", {},
      make("th", {scope: "row"}, column.key), [...BANDS.map(band => column.bands[band] ?? 0), column.born].map(count => make("td", {}, counted(count)))))));
}

const FATES = ["persists", "splits", "merges", "dies"];

function shareCell([value, low, high]) {
  return make("td", {}, percent(value, 0), low === null ? null : make("span", {class: "quiet small"}, ` ${percent(low, 0)}–${percent(high, 0)}`));
}

function fateBar(row) {
  const label = FATES.map(fate => `${percent(row.shares[fate][0], 0)} ${fate}`).join(", ");
  return make("span", {class: "fates", role: "img", "aria-label": label}, FATES.map(fate =>
    styled(make("span", {class: fate, title: `${plural(row.counts[fate], "feature")}: ${fate}`}), "--share", row.shares[fate][0].toFixed(4))));
}

// Of every two layers what becomes of the live features of the first, and what share of the second is born.
function fateTable({fates, untold}) {
  const known = row => row.born !== null && FATES.every(fate => row.shares[fate]?.[0] !== null);
  return [make("p", {}, "Two features are called the same if they are active on the same tokens of unseen text (φ at least 0.3); the "
    + "probability of that is estimated from the weights. Shares of live features, with 95% intervals over features."),
  make("ul", {class: "bands"}, [["persists", "one feature of the next layer is the same"], ["splits", "several are"],
    ["merges", "one is, and others have it as their partner too"], ["dies", "none is"], ["born", "no feature of the layer before is the same"]].map(([fate, words]) =>
    make("li", {}, make("span", {class: `swatch ${fate}`}), `${fate}: ${words}`))),
  tableOf("What becomes of features, by layer", ["layers", "", "live", ...FATES, "born in the second"], fates.map(row => make("tr", {},
    make("th", {scope: "row"}, `${row.a} → ${row.b}`),
    known(row) ? [make("td", {class: "left"}, fateBar(row)), make("td", {}, counted(row.live)), FATES.map(fate => shareCell(row.shares[fate])), shareCell(row.born)]
      : make("td", {colspan: String(FATES.length + 3), class: "left quiet"}, "not known"))), "fated"),
  ...untold.map(why => make("p", {class: "notice warning"}, why))];
}

export async function showWhole(place, asked, run) {
  const measure = asked.measure || "mse";
  const answer = await ask("whole", {measure});
  place.append(make("h1", {}, "The whole run"));
  if (!answer.histograms.some(one => one.median !== null)) {
    place.append(make("p", {}, "No two layers are matched yet, so nothing flows."));
    return;
  }
  if (answer.fates.length || answer.untold.length) place.append(make("h2", {}, "What becomes of features"), ...fateTable(answer));
  place.append(make("h2", {}, "Flows of SAE Match by cost"), make("p", {}, "Every column is a layer, cut by what the step to the next layer costs; a ribbon is features that "
    + "go to their nearest under a one-to-one matching. Bars lead to the features behind them."),
  bandLegend(answer));
  for (const chain of run.chains) {
    if (run.chains.length > 1) place.append(make("h2", {}, chain.join(" → ")));
    const columns = answer.columns.filter(column => chain.includes(column.key));
    place.append(flowChart(answer, columns), asTable(columns));
  }
  place.append(make("h2", {}, "How near the pairs are"),
    chooser("whole", asked, [["measure", "Measure", [["mse", "decoder MSE"], ["cost", "cost"]], measure]]),
    make("p", {class: "quiet"}, "Live pairs of every two layers, on one logarithmic scale; the line is the median."),
    make("div", {class: "multiples"}, answer.histograms.map(one => histogram(one, answer))));
  if (run.notes.length) place.append(make("h2", {}, "Notes on this run"), make("ul", {}, run.notes.map(note => make("li", {}, note))));
}
