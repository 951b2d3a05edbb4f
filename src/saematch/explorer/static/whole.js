import { address, el, number, say, svg } from "./dom.js";
import { ask } from "./source.js";

export async function whole(about) {
  const found = await ask("whole");
  say(`${found.layers.length} layers`);
  if (!found.flows.length) return [el("h2", {}, "The whole"), el("p", {}, "No matching is finished yet; saematch run goes on writing, and this page shows what is there when it is loaded again.")];
  const flows = new Map(found.flows.map((flow) => [flow.a, flow]));
  const most = Math.max(...found.flows.map((flow) => flow.median));
  const row = el("div", { class: "flow", tabindex: "0", role: "group", "aria-label": "layers and what flows between them" });
  for (const layer of found.layers) {
    row.append(el("div", { class: "layer" }, el("a", { href: address("find", { key: layer.key }) }, layer.key), el("div", {}, `${number(layer.features)} features`), el("div", {}, `${number(layer.live)} live`), el("div", { class: "quiet" }, `${number(layer.described)} described`)));
    const flow = flows.get(layer.key);
    if (flow) row.append(between(flow, flow.median / most));
  }
  return [
    el("h2", {}, "The whole"),
    el("p", { class: "quiet" }, "A band is the features that go on to the next layer; the darker, the dearer its middle pair (median decoder MSE, relative to the dearest step). Bars: live pairs by decoder MSE; choose one to see the features behind it."),
    row, table(found.flows),
  ];
}

function between(flow, share) {
  const width = 200, height = 136, top = 8, thick = 30, base = height - 14, most = Math.max(...flow.counts, 1);
  const drawn = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `from ${flow.a} to ${flow.b}` });
  drawn.append(svg("rect", { class: "band", x: 0, y: top, width, height: thick, fill: `rgb(0 114 178 / ${(0.25 + 0.65 * share).toFixed(2)})` }));
  if (flow.died) drawn.append(svg("path", { class: "stub", d: `M0 ${top + thick + 5}h40v8` }));
  if (flow.born) drawn.append(svg("path", { class: "stub", d: `M${width - 40} ${top + thick + 13}v-8h40` }));
  const wide = (width - 8) / flow.counts.length;
  flow.counts.forEach((count, place) => {
    if (!count) return;
    const tall = Math.max(1.5, (base - 56) * count / most);
    const range = { key: flow.a, status: "live", mse_min: flow.edges[place], mse_max: flow.edges[place + 1], sort: "mse" };
    const words = `${count} pairs of decoder MSE ${number(flow.edges[place])} to ${number(flow.edges[place + 1])}`;
    drawn.append(svg("a", { href: address("find", range), "aria-label": words }, svg("rect", { class: "bar", x: 4 + wide * place, y: base - tall, width: wide - 1, height: tall }, svg("title", {}, words))));
  });
  drawn.append(svg("path", { class: "axis", d: `M4 ${base}h${width - 8}` }), svg("text", { x: 4, y: height - 3 }, number(flow.low)), svg("text", { x: width - 4, y: height - 3, "text-anchor": "end" }, number(flow.high)));
  return el("div", { class: "between" }, drawn, el("div", { class: "quiet" }, `${number(flow.kept)} go on`, flow.died ? `, ${number(flow.died)} die` : "", flow.born ? `, ${number(flow.born)} are born` : ""));
}

function table(flows) {
  const head = ["step", "go on", "die", "are born", "certain", "median decoder MSE"];
  const line = (flow) => [`${flow.a} → ${flow.b}`, number(flow.kept), number(flow.died), number(flow.born), number(flow.certain), number(flow.median)];
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "the same in numbers" }, el("table", {},
    el("thead", {}, el("tr", {}, ...head.map((text, place) => el("th", { scope: "col", class: place ? "number" : "" }, text)))),
    el("tbody", {}, ...flows.map((flow) => el("tr", {}, ...line(flow).map((text, place) => el("td", { class: place ? "number" : "" }, text)))))));
}
