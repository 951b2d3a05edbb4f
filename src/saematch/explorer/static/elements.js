// Elements, numbers and tokens from values.  Text is only ever set as text: descriptions and examples come from strangers.

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

export function warning(...words) {
  return make("p", {class: "notice warning", role: "alert"}, words);
}

// What a question could not look into, by the key of the SAE.
export function leftOut(problems) {
  return Object.entries(problems).map(([key, why]) => warning(`Layer ${key} is left out: ${why}`));
}

export function tableOf(label, head, rows, className = "") {
  return make("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": label},
    make("table", {class: className}, make("thead", {}, make("tr", {}, head.map(name => make("th", {scope: "col"}, name)))),
      make("tbody", {}, rows)));
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

// Numbers as people read them; "–" if there is none.
export function short(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(1).replace("e+", "e").replaceAll("-", "−");
  return Number(value.toPrecision(digits)).toString().replace("-", "−");
}

export function percent(share, digits = 1) {
  if (share === null || share === undefined) return "–";
  const value = 100 * share;
  if (value !== 0 && value < 0.1) return `${short(value, 1)}%`;
  return `${Number(value.toFixed(value < 10 ? digits : 0))}%`;
}

export function counted(value) {
  return value === null || value === undefined ? "–" : value.toLocaleString("en-GB");
}

export function signed(value) {
  return value === null || value === undefined ? "–" : (value >= 0 ? "+" : "−") + short(Math.abs(value));
}

export function plural(count, word, words = `${word}s`) {
  return `${counted(count)} ${count === 1 ? word : words}`;
}

// Tokens as text: blanks and line ends are made visible, activations are shown as shades.

function visible(token) {
  return token.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll("\u00a0", "⍽");
}

// Runs of blanks, such as the indents of code, would fill the line.
function closed(token) {
  return visible(token).replace(/ {2,}/g, " ");
}

// Blanks around a token and capitals do not matter where one is looked for; line ends as people type them.
export function sameToken(...tokens) {
  const [one, other] = tokens.map(token => token.replaceAll("\\n", "\n").replaceAll("\\t", "\t").replace(/^ +| +$/g, "").toLowerCase());
  return one === other;
}

// How much of a feature's activation is on a token; null if it is in its examples alone.
export function shareOf(row, token) {
  const shares = (row.activates_on ?? []).flatMap((one, place) => (sameToken(one, token) ? [row.activates_on_share?.[place] ?? 0] : []));
  return shares.length ? shares.reduce((sum, one) => sum + one, 0) : null;
}

function chip(token) {
  return /^ *$/.test(token) ? "␣" : closed(token);
}

function tokenList(tokens, label, shares) {
  if (!tokens || !tokens.length) return null;
  return make("p", {class: "tokens"}, make("span", {class: "quiet"}, `${label} `),
    tokens.map((token, place) => (shares ? [make("span", {class: "shared"}, make("span", {class: "token"}, chip(token)),
      make("span", {class: "quiet"}, percent(shares[place], 0))), " "] : make("span", {class: "token"}, chip(token)))));
}

// What a feature activates on, amid what, and its top logits, as its description from activations has them.
function tokenLists(feature, shares) {
  return [["activates_on", "activates on"], ["amid", "amid"], ["top_logits", "top logits"]]
    .map(([name, label]) => tokenList(feature[name], label, name === "activates_on" ? shares : null));
}

// A description, or, where it is nothing but lists of tokens, those.  `shares`: also how much of its activation
// is on each of the tokens that it activates on.
export function meaning(feature, otherwise, {shares = false} = {}) {
  const shown = shares ? feature.activates_on_share : null;
  if (feature.source === "activations" && feature.activates_on?.length) return make("div", {class: "meant"}, tokenLists(feature, shown));
  return [feature.description ? make("span", {class: "said"}, feature.description)
    : make("span", {class: "quiet"}, otherwise), tokenList(feature.activates_on, "activates on", shown), tokenList(feature.top_logits, "top logits")];
}

// The example with its tokens shaded by activation, the strongest of the feature being 1.
export function exampleLine(example, greatest) {
  const line = make("p", {class: "example"});
  example.tokens.forEach((token, place) => {
    const activation = example.activations[place] || 0;
    const mark = () => make("mark", {class: place === example.place ? "peak" : "", title: `activation ${short(activation)}`}, closed(token));
    line.append(activation <= 0 ? closed(token)
      : styled(mark(), "--share", Math.min(1, 0.15 + 0.85 * activation / (greatest || activation)).toFixed(2)));
  });
  line.append(make("span", {class: "quiet corpus"}, ` ${example.corpus}`));
  return line;
}
