// Elements made of text: nothing that a run holds is ever read as HTML.

export const SVG = "http://www.w3.org/2000/svg";

export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  for (const child of children.flat()) if (child !== null && child !== undefined) node.append(child);
  return node;
}

export function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(2) : String(Number(value.toPrecision(digits)));
}

export function percent(value) {
  return value === null || value === undefined ? "–" : `${(100 * value).toFixed(value < 0.01 ? 2 : 0)}%`;
}

export function address(view, asked = {}) {
  const kept = Object.entries(asked).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return "#" + new URLSearchParams([["view", view], ...kept.map(([name, value]) => [name, String(value)])]);
}

export function featureLink(key, feature) {
  return el("a", { href: address("follow", { key, feature }) }, `${key}/${feature}`);
}

export function tokens(list) {
  return (list ?? []).flatMap((token) => [el("span", { class: "token" }, token.replaceAll("\n", "⏎")), " "]);
}

export function say(text) {
  document.getElementById("said").textContent = text;
}

export function field(label, name, value, more = {}) {
  return el("label", {}, label, el("input", { name, value: value ?? "", ...more }));
}

export function choice(label, name, value, options) {
  const made = options.map(([key, text]) => el("option", { value: key, selected: key === (value ?? "") }, text));
  return el("label", {}, label, el("select", { name }, ...made));
}

export function asForm(view, fixed, ...children) {
  const form = el("form", { role: "search" }, ...children);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    location.hash = address(view, { ...fixed, ...Object.fromEntries(new FormData(form)) });
  });
  return form;
}

export function pager(view, asked, total, size) {
  const page = Number(asked.page ?? 1), last = Math.max(1, Math.ceil(total / size));
  const to = (number, text) => number < 1 || number > last ? el("span", { class: "quiet" }, text) : el("a", { href: address(view, { ...asked, page: number }) }, text);
  return el("p", { class: "pager" }, to(page - 1, "← before"), `page ${page} of ${number(last)}, ${number(total)} in all`, to(page + 1, "next →"));
}
