// Tokens as text: blanks and line ends are made visible, activations are shown as shades.

import {make, styled} from "./elements.js";
import {short} from "./numbers.js";

function visible(token) {
  return token.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll("\u00a0", "⍽");
}

// Runs of blanks, such as the indents of code, would fill the line.
function closed(token) {
  return visible(token).replace(/ {2,}/g, " ");
}

function chip(token) {
  return /^ *$/.test(token) ? "␣" : closed(token);
}

export function tokenList(tokens, label) {
  if (!tokens || !tokens.length) return null;
  return make("p", {class: "tokens"}, make("span", {class: "quiet"}, `${label} `),
    tokens.map(token => make("span", {class: "token"}, chip(token))));
}

// What a feature fires on, amid and promotes, as its description from activations says it.
export function tokenLists(feature) {
  return [["fires_on", "fires on"], ["amid", "amid"], ["promotes", "promotes"]]
    .map(([name, label]) => tokenList(feature[name], label));
}

// A description, or, where it is nothing but lists of tokens, those.
export function meaning(feature, otherwise) {
  if (feature.source === "activations" && feature.fires_on?.length) return make("div", {class: "meant"}, tokenLists(feature));
  return [feature.description ? make("span", {class: "said"}, feature.description)
    : make("span", {class: "quiet"}, otherwise), tokenList(feature.fires_on, "fires on"), tokenList(feature.promotes, "promotes")];
}

// The context with its tokens shaded by activation, the strongest of the feature being 1.
export function contextLine(context, greatest) {
  const line = make("p", {class: "context"});
  context.tokens.forEach((token, place) => {
    const activation = context.activations[place] || 0;
    if (activation <= 0) {
      line.append(closed(token));
      return;
    }
    const mark = make("mark", {class: place === context.place ? "peak" : "", title: `activation ${short(activation)}`},
      closed(token));
    line.append(styled(mark, "--share", Math.min(1, 0.15 + 0.85 * activation / (greatest || activation)).toFixed(2)));
  });
  const end = make("span", {class: "quiet corpus"}, ` ${context.corpus}`);
  line.append(end);
  return line;
}
