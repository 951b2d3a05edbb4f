import { address, el, featureLink, number, percent, say, tokens } from "./dom.js";
import { ask } from "./source.js";

export async function follow(about, asked) {
  const cards = await ask("follow", { key: asked.key, feature: asked.feature });
  say(`path of feature ${asked.key}/${asked.feature} through ${cards.length} layers`);
  const here = cards.findIndex((card) => card.key === asked.key && card.feature === Number(asked.feature));
  const first = cards[0], last = cards[cards.length - 1];
  const row = el("ol", { class: "path", tabindex: "0", "aria-label": "the path, layer by layer" });
  cards.forEach((card, place) => {
    if (card.step) row.append(el("li", { class: "step" }, ...stepParts(card)));
    row.append(el("li", { class: place === here ? "card here" : "card", id: place === here ? "here" : null }, ...cardParts(about, card, place === here)));
  });
  return [
    el("h2", {}, `Feature ${asked.key}/${asked.feature} and its path`),
    el("p", { class: "quiet" }, `Layers ${first.key} to ${last.key}: each step leads to the feature that is nearest under a one-to-one matching. Whether two features mean the same is another question; steps to doubt say why.`),
    first.path === null ? el("p", { class: "doubt" }, "No path goes through this layer.") : null,
    row,
  ];
}

function cardParts(about, card, isHere) {
  const contexts = el("ul", { class: "contexts" }, el("li", { class: "quiet" }, about.contexts ? "reading contexts…" : "no contexts yet: saematch describe"));
  if (about.contexts) ask("contexts", { key: card.key, feature: card.feature }).then((found) => contexts.replaceChildren(...shownContexts(found)), (error) => contexts.replaceChildren(el("li", {}, error.message)));
  const page = about.neuronpedia[card.key];
  return [
    el("h3", {}, isHere ? `${card.key}/${card.feature}` : featureLink(card.key, card.feature)),
    el("p", { class: "quiet" }, `${card.status ?? "not matched"}, fires on ${percent(card.density)} of tokens`),
    el("p", {}, card.text ?? el("span", { class: "quiet" }, "no description")),
    card.promotes?.length && about.source !== "activations" ? el("p", {}, "promotes ", ...tokens(card.promotes)) : null,
    page ? el("p", {}, el("a", { href: `https://www.neuronpedia.org/${page}/${card.feature}`, rel: "noreferrer noopener", target: "_blank" }, "at Neuronpedia")) : null,
    contexts,
  ];
}

function shownContexts(found) {
  if (!found.length) return [el("li", { class: "quiet" }, "it was not seen to fire")];
  return found.map((one) => {
    const greatest = Math.max(...one.activations, 1e-9);
    const pieces = one.tokens.map((token, place) => {
      const level = one.activations[place] > 0 ? Math.max(1, Math.ceil(4 * one.activations[place] / greatest)) : 0;
      const text = token.replaceAll("\n", "⏎");
      return level ? el("mark", { class: `heat-${level}`, title: `activation ${number(one.activations[place])}` }, text) : text;
    });
    return el("li", {}, ...pieces, el("div", { class: "from" }, `${one.corpus}, activation ${number(one.activation)}`));
  });
}

function stepParts(card) {
  const step = card.step;
  const facts = [["decoder MSE", number(step.mse)], ["cost", number(step.cost)], ["dearer than", percent(step.quantile)], ["cosine", number(step.cosine)], ["margin", number(step.margin)],
    ["certain", step.certain ? "yes" : "no"], ["φ", number(step.phi)], ["lift", number(step.lift)]];
  const others = (step.runners_up ?? []).map((one) => el("li", {}, featureLink(card.key, one.candidate), ` cost ${number(one.cost)}, cosine ${number(one.cosine)}`, one.text ? el("div", { class: "quiet" }, one.text) : null));
  return [
    el("div", { class: "quiet" }, `step into ${card.key} →`),
    el("dl", {}, ...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
    step.label ? el("p", {}, "judge: ", el("span", { class: `label-${step.label}` }, step.label)) : null,
    ...step.doubts.map((why) => el("p", { class: "doubt" }, why)),
    others.length ? el("details", {}, el("summary", {}, `${others.length} runners-up`), el("ul", {}, ...others)) : null,
  ];
}
