// Tokens as text: blanks and line ends are made visible, activations are shown as shades.

import {make, styled} from "./elements.js";
import {percent, short} from "./numbers.js";

function visible(token) {
  return token.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll("\u00a0", "⍽");
}

// Runs of blanks, such as the indents of code, would fill the line.
function closed(token) {
  return visible(token).replace(/ {2,}/g, " ");
}

// Blanks around a token and capitals do not matter where one is looked for; line ends as people type them.
export function sameToken(one, other) {
  return trimmed(one) === trimmed(other);
}

function trimmed(token) {
  return token.replaceAll("\\n", "\n").replaceAll("\\t", "\t").replace(/^ +| +$/g, "").toLowerCase();
}

function chip(token) {
  return /^ *$/.test(token) ? "␣" : closed(token);
}

export function tokenList(tokens, label, shares) {
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
    if (activation <= 0) {
      line.append(closed(token));
      return;
    }
    const mark = make("mark", {class: place === example.place ? "peak" : "", title: `activation ${short(activation)}`},
      closed(token));
    line.append(styled(mark, "--share", Math.min(1, 0.15 + 0.85 * activation / (greatest || activation)).toFixed(2)));
  });
  const end = make("span", {class: "quiet corpus"}, ` ${example.corpus}`);
  line.append(end);
  return line;
}
