// One feature of a path: what is known of it, and of the step that led to it.

import {clear, make, styled} from "./elements.js";
import {followAddress} from "./route.js";
import {ask} from "./questions.js";
import {counted, percent, plural, short, signed} from "./numbers.js";
import {exampleLine, meaning} from "./tokens.js";
import {featureLink, labelMarks} from "./find.js";

const EXAMPLES = 3;
const MORE_EXAMPLES = 12;

function pairs(rows) {
  return make("dl", {}, rows.map(([term, ...value]) => [make("dt", {}, term), make("dd", {}, value)]));
}

// Warnings about a step; features of its layer that are named lead to their paths.
function warningsOf(card) {
  const before = card.step.from.slice(0, card.step.from.lastIndexOf("/"));
  const parts = card.step.warnings.join("; ").split(/(\S+\/\d+)/).map(part => {
    const slash = part.lastIndexOf("/");
    return [card.key, before].includes(part.slice(0, slash)) ? featureLink(part.slice(0, slash), part.slice(slash + 1)) : part;
  });
  return make("p", {class: "warnings"}, make("b", {}, "Warning: "), parts);
}

// φ and lift are means over the texts on which they are known, which may be fewer for one of them.
function together(step) {
  const {phi_texts: texts, lift_texts: lifted} = step;
  const of = count => (texts === lifted ? "" : ` (${plural(count, "text")})`);
  return [`φ ${short(step.phi, 2)}${of(texts)}`, step.lift === null ? "" : `, lift ${short(step.lift)}${of(lifted)}`,
    make("br"), make("span", {class: "quiet small"}, `${counted(step.joint_active)} of ${counted(step.active)} and ${counted(step.partner_active)}`)];
}

function stepBlock(card) {
  const step = card.step;
  if (!step) return make("div", {class: "step first quiet"}, "the path starts here");
  const bar = step.quantile === null ? null
    : styled(make("span", {class: "bar", title: `cost above that of ${percent(step.quantile)} of the live pairs`}), "--share",
      step.quantile.toFixed(3));
  return make("div", {class: "step"},
    pairs([
      ["decoder MSE", short(step.mse)],
      ["cosine", short(step.cosine, 2)],
      ["cost", short(step.cost), " ", bar],
      ["margin", short(step.margin), step.certain === null ? "" : step.certain ? " certain" : make("span", {class: "warning"}, " not certain")],
      step.phi === null ? null : ["active together", together(step)],
      step.runner_up === null ? null : ["runner-up", featureLink(card.key, step.runner_up), ` ${signed(step.extra_cost)}`,
        `, cosine ${short(step.runner_up_cosine, 2)}`, step.runner_up_status && step.runner_up_status !== "live"
          ? make("span", {class: "warning"}, ` ${step.runner_up_status}`) : null],
    ].filter(Boolean)),
    step.labels?.length ? make("p", {class: "judged"}, "judged ", labelMarks(step.labels), judgedButton(step.from)) : null,
    step.warnings.length ? warningsOf(card) : null);
}

// A button that puts what it asks for below itself.
function disclosure(label, load) {
  const place = make("div", {hidden: true});
  const button = make("button", {type: "button", class: "plain", "aria-expanded": "false"}, label);
  button.addEventListener("click", async () => {
    place.hidden = !place.hidden;
    button.setAttribute("aria-expanded", String(!place.hidden));
    if (place.hidden || place.childNodes.length) return;
    try {
      clear(place, await load());
    } catch (error) {
      clear(place, make("p", {class: "warning", role: "alert"}, error.message));
    }
  });
  return make("div", {class: "disclosure"}, button, place);
}

function judgedButton(before) {
  return disclosure("why", async () => {
    const {judgements} = await ask("judgements", {feature: before});
    return judgements.map(one => make("p", {class: "small"}, make("b", {}, `${one.label ?? "no label"}`),
      ` in ${one.experiment}, by ${one.judge}`, one.score === null ? "" : `, score ${short(one.score, 2)}`,
      one.stands ? "" : " (its label is not shown: another judge stands for this experiment)", one.warning ? ` (${one.warning})` : "",
      one.reason ? `: ${one.reason}` : ""));
  });
}

function candidatesButton(card) {
  return disclosure("nearest at the next layer", async () => {
    const answer = await ask("candidates", {feature: `${card.key}/${card.feature}`});
    if (!answer.next) return make("p", {class: "small quiet"}, "there is no next layer");
    if (!answer.candidates.length) return make("p", {class: "small quiet"}, "not kept in this run: saematch run makes them");
    return make("ol", {class: "candidates"}, answer.candidates.map(one => make("li", {},
      one.rank === null ? "by direction: " : null, featureLink(answer.next, one.candidate), ` cost ${short(one.cost)}, cosine ${short(one.cosine, 2)}`,
      one.status && one.status !== "live" ? make("span", {class: "warning"}, ` ${one.status}`) : null,
      one.candidate === answer.partner ? make("b", {}, ", matched") : null,
      one.given_to !== null && one.given_to !== card.feature
        ? [", given to ", featureLink(card.key, one.given_to)] : null,
      one.description ? make("span", {class: "said small"}, one.description) : null)));
  });
}

function exampleBlock(answer, greatest, card, place) {
  if (!answer.examples.length) {
    return make("p", {class: "quiet small"}, card.activation_count === 0 ? "never active on the corpora" : "no examples are stored");
  }
  const more = answer.examples.length < EXAMPLES || answer.examples.length > EXAMPLES ? null
    : make("button", {type: "button", class: "plain"}, "more examples");
  more?.addEventListener("click", async () => {
    const longer = await ask("evidence", {feature: `${card.key}/${card.feature}`, limit: MORE_EXAMPLES})
      .catch(() => answer);
    clear(place, exampleBlock(longer, greatest, card, place));
  });
  return [answer.examples.map(one => exampleLine(one, greatest)), more];
}

// A card and `open`, which asks for what stands behind it.
export function featureCard(card, here, run) {
  const name = `${card.key}/${card.feature}`;
  const examples = make("div", {class: "examples"}, make("p", {class: "quiet small"}, run.sources.length ? "…" : ""));
  const elsewhere = make("p", {class: "small"});
  const life = [card.born ? "born here" : "", card.dies ? "dies here" : ""].filter(Boolean).join(", ");
  const node = make("li", {class: here ? "here" : "", "aria-current": here ? "true" : null},
    make("h2", {}, make("span", {class: "quiet"}, `layer ${card.key}`), make("a", {href: followAddress(card.key, card.feature)}, card.feature),
      card.status && card.status !== "live" ? make("span", {class: "warning"}, card.status) : null,
      life ? make("span", {class: "warning"}, life) : null),
    stepBlock(card),
    meaning(card, run.sources.length ? "no description" : "not described yet", {shares: true}),
    card.source && card.source !== "activations" ? make("p", {class: "quiet small"}, `description: ${card.source}`) : null,
    examples,
    card.activation_frequency === null ? null : pairs([["activation frequency", percent(card.activation_frequency, 2), card.activation_count === null ? "" : ` (${plural(card.activation_count, "activation")})`], ["greatest activation", short(card.greatest_activation)]]),
    candidatesButton(card), elsewhere);
  const open = async () => {
    try {
      const answer = await ask("evidence", {feature: name, limit: EXAMPLES});
      clear(examples, exampleBlock(answer, card.greatest_activation, card, examples),
        answer.problems.map(why => make("p", {class: "warning small", role: "alert"}, why)));
      if (answer.descriptions.length > 1) elsewhere.before(otherDescriptions(answer, card));
      if (answer.neuronpedia) elsewhere.append(make("a", {href: answer.neuronpedia, target: "_blank", rel: "noopener noreferrer"},
        "on Neuronpedia ↗"));
    } catch (error) {
      clear(examples, make("p", {class: "warning small", role: "alert"}, error.message));
    }
  };
  return {node, open};
}

function otherDescriptions(answer, card) {
  const others = answer.descriptions.filter(one => one.text !== card.description);
  if (!others.length) return "";
  return make("details", {class: "small"}, make("summary", {}, "other descriptions"),
    others.map(one => make("p", {class: "said"}, one.text, make("span", {class: "quiet"}, ` (${one.source}${one.explainer ? `, ${one.explainer}` : ""})`))));
}
