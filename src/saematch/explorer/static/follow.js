// The path of one feature through the layers, a card per layer.

import {make} from "./elements.js";
import {address} from "./route.js";
import {ask} from "./questions.js";
import {percent, plural, short} from "./numbers.js";
import {featureCard} from "./card.js";
import {featureLink} from "./find.js";

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
  place.append(summary(path), neighbours(path),
    path.ends.before ? make("p", {class: "quiet"}, `Before: ${path.ends.before}.`) : null ?? "",
    list,
    path.ends.after ? make("p", {class: "quiet"}, `After: ${path.ends.after}.`) : null ?? "", legend());
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
