// Elements from values.  Text is only ever set as text: descriptions and examples come from strangers.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter(one => one !== null && one !== undefined && one !== false)
    .map(one => (one instanceof Node ? one : String(one))));
  return node;
}

// make("p", {class: "quiet"}, "text", node, [more]): attributes with no value are left out.
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function drawn(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

export function clear(node, ...children) {
  node.replaceChildren(...children.flat(Infinity).filter(Boolean));
  return node;
}

// A value of the style sheet's; style attributes in markup are forbidden by the page's policy.
export function styled(node, name, value) {
  node.style.setProperty(name, value);
  return node;
}

let lastNumber = 0;
export function newId(prefix) {
  lastNumber += 1;
  return `${prefix}-${lastNumber}`;
}
