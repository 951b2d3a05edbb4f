// The path of one feature through the layers, a card per layer: what is known of it, and of the step that led to it.

import {clear, counted, exampleLine, make, meaning, percent, plural, short, signed} from "./elements.js";
import {address, ask, followAddress} from "./questions.js";
import {becomingOf} from "./becoming.js";
import {featureLink, labelMarks, notLive, quantileBar} from "./find.js";

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
  return make("div", {class: "step"},
    pairs([
      ["decoder MSE", short(step.mse)],
      ["cosine", short(step.cosine, 2)],
      ["cost", short(step.cost), " ", quantileBar(step.quantile)],
      ["margin", short(step.margin), step.certain === null ? "" : step.certain ? " certain" : make("span", {class: "warning"}, " not certain")],
      step.phi === null ? null : ["active together", together(step)],
      step.runner_up === null ? null : ["runner-up", featureLink(card.key, step.runner_up), ` ${signed(step.extra_cost)}`,
        `, cosine ${short(step.runner_up_cosine, 2)}`, notLive(step.runner_up_status)],
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
      notLive(one.status),
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
function featureCard(card, here, run) {
  const name = `${card.key}/${card.feature}`;
  const examples = make("div", {class: "examples"}, make("p", {class: "quiet small"}, run.sources.length ? "…" : ""));
  const elsewhere = make("p", {class: "small"});
  const life = [card.born ? "born here" : "", card.dies ? "dies here" : ""].filter(Boolean).join(", ");
  const node = make("li", {class: here ? "here" : "", "aria-current": here ? "true" : null},
    make("h2", {}, make("span", {class: "quiet"}, `layer ${card.key}`), make("a", {href: followAddress(card.key, card.feature)}, card.feature),
      notLive(card.status), life ? make("span", {class: "warning"}, life) : null),
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

function followForm(asked, run) {
  const first = run.saes[0]?.key ?? "0";
  const field = make("input", {id: "feature", name: "feature", value: asked.feature ?? "", placeholder: `${first}/0`,
    autocomplete: "off", "aria-describedby": "feature-help"});
  const form = make("form", {class: "search one"},
    make("div", {class: "field"}, make("label", {for: "feature"}, "Feature"), field),
    make("button", {}, "Follow"),
    make("span", {id: "feature-help", class: "quiet"}, `layer/index; layers ${first} to ${run.saes.at(-1)?.key ?? first}`));
  form.addEventListener("submit", event => {
    event.preventDefault();
    location.hash = address("follow", {feature: field.value.trim()}); // the server says what is wrong with it
  });
  return form;
}

function summary(path) {
  const here = path.cards[path.here], next = path.cards[path.here + 1];
  const text = make("p", {class: "answer"});
  if (!next) {
    const name = make("b", {}, `${here.key}/${here.feature}`);
    if (!path.known[1]) text.append("Where ", name, ` goes is not known: ${path.ends.after}.`);
    else text.append("The path of ", name, path.ends.after ? " ends here: it is matched to nothing at the next layer." : " ends here, at the last layer.");
    return text;
  }
  const step = next.step;
  text.append("Nearest to feature ", make("b", {}, here.feature), ` of layer ${here.key} under a one-to-one matching is feature `,
    make("b", {}, next.feature), ` of layer ${next.key}, at decoder MSE ${short(step.mse)}`
    + (step.quantile === null ? "" : ` (cost below that of ${percent(1 - step.quantile)} of the live pairs)`)
    + ` and cosine ${short(step.cosine, 2)}. `,
    step.certain === null ? "The matching of these layers is missing, so how near the two are is not known."
      : step.certain ? "The pair is certain: every matching of least total cost contains it."
      : "The pair is not certain: an equally good matching may pair it otherwise.",
    step.warnings.length ? make("b", {class: "warning"}, ` ${plural(step.warnings.length, "warning")}: ${step.warnings.join("; ")}.`) : "");
  return text;
}

function neighbours(path) {
  const before = path.cards[path.here - 1], after = path.cards[path.here + 1];
  return make("nav", {class: "paging", "aria-label": "Along the path"},
    before ? make("span", {}, "← ", featureLink(before.key, before.feature)) : make("span", {class: "quiet"}, path.known[0] ? "← the path starts here" : "← not known"),
    make("b", {}, `${path.cards[path.here].key}/${path.cards[path.here].feature}`),
    after ? make("span", {}, featureLink(after.key, after.feature), " →") : make("span", {class: "quiet"}, path.known[1] ? "the path ends here →" : "not known →"));
}

// Left and right go from card to card.
function arrows(list) {
  list.addEventListener("keydown", event => {
    const by = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!by || event.target.matches("input, select")) return;
    const links = [...list.querySelectorAll("h2 a")];
    const place = links.findIndex(link => link.closest("li").contains(document.activeElement));
    const next = links[place + by];
    if (!next) return;
    event.preventDefault();
    next.focus();
    next.closest("li").scrollIntoView({inline: "center", block: "nearest"});
  });
}

function legend() {
  return make("details", {class: "legend"}, make("summary", {}, "What a card says"),
    make("p", {}, make("b", {}, "Step: "), "how the path came into this layer. ", make("b", {}, "Decoder MSE"),
      ": mean squared difference of the two folded decoder rows. ", make("b", {}, "Cost"),
      ": squared distance of all matched parts. ", make("b", {}, "Margin"),
      ": a proven lower bound on how much the total would rise if the pair were forbidden; where it exceeds what the "
      + "proof leaves open the pair is ", make("b", {}, "certain"), ", about the optimum, not about meaning. ",
      make("b", {}, "Runner-up"), ": the nearest other feature, and what it costs beyond the pair; below zero it is "
      + "nearer, but was given to another feature, as small features, above all dead ones, are near to everything. ",
      make("b", {}, "Warning"), ": a feature is not live; the pair is among the most costly 10%; another live feature is nearer "
      + "both by cost and by cosine, or has a cosine greater by more than 0.1; the pair is not certain or nearly tied; both activate on "
      + "the evaluation’s texts and never together; the judge calls the two DIFFERENT. Next to a token: the share of the feature’s "
      + "activation that is on it. "
      + "Shades in an example: activation, relative to the feature’s greatest. ",
      make("b", {}, "Active together"),
      ": correlation of the two features’ activity (φ), and how many times as often as by chance (lift), means over the texts "
      + "on which they are known; how often both were active at once, out of the activations of the feature before and of this one. ",
      make("b", {}, "Label"), ": what a judge says of the two descriptions."));
}

export async function showFollow(place, asked, run) {
  place.append(make("h1", {}, asked.feature ? `Follow ${asked.feature}` : "Follow a feature"), followForm(asked, run));
  if (!asked.feature) {
    const [first] = run.saes;
    place.append(make("p", {}, "Name a feature, or ", make("a", {href: "#/find"}, "find one"),
      first ? [", or start with ", featureLink(first.key, Math.min(5, first.features - 1))] : null, "."));
    return;
  }
  const path = await ask("path", {feature: asked.feature});
  const cards = path.cards.map((card, number) => featureCard(card, number === path.here, run));
  const list = make("ol", {class: "cards", "aria-label": "The path, layer by layer"}, cards.map(card => card.node));
  arrows(list);
  place.append(await becomingOf(asked.feature, run), make("h2", {}, "The path of SAE Match"),
    make("p", {class: "quiet small"}, "One-to-one matchings of every two layers, one after the other: over several layers their errors add up."),
    summary(path), neighbours(path),
    path.ends.before ? make("p", {class: "quiet"}, `Before: ${path.ends.before}.`) : "", list,
    path.ends.after ? make("p", {class: "quiet"}, `After: ${path.ends.after}.`) : "", legend());
  place.addEventListener("shown", () => {
    const here = list.children[path.here];
    list.scrollLeft = here.offsetLeft - Math.max(0, (list.clientWidth - here.clientWidth) / 2);
    whenSeen(list, cards);
  });
}

// What stands behind a card is asked for when the card comes into view.
function whenSeen(list, cards) {
  const observer = new IntersectionObserver(entries => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      observer.unobserve(entry.target);
      cards[[...list.children].indexOf(entry.target)].open();
    }
  }, {root: list, rootMargin: "0px 200px"});
  for (const child of list.children) observer.observe(child);
}
