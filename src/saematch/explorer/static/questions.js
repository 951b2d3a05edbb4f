// Questions to the run, and addresses: what is shown stands after "#", so that links can be shared.

import {plural, sameToken, shareOf} from "./elements.js";

const carried = document.getElementById("carried");
const data = carried ? JSON.parse(carried.textContent) : null;

export const exported = data !== null;

export function address(view, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const query = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return `#/${view}${query ? `?${query}` : ""}`;
}

export function currentRoute() {
  const text = location.hash.replace(/^#\/?/, "");
  const [view, query = ""] = text.split(/\?(.*)/s);
  return {view: view || "find", parameters: Object.fromEntries(new URLSearchParams(query))};
}

export function followAddress(key, feature) {
  return address("follow", {feature: `${key}/${feature}`});
}

// The answers of an exported file.  It carries whole answers, and the features of the paths it was made of.

function embeddedAnswer(question, asked) {
  if (question === "features") return found(asked);
  const place = question === "path" ? data.places[asked.feature] : null;
  if (place) return {...data.paths[place[0]], here: place[1]};
  const answer = data.answers[question]?.[asked.feature ?? JSON.stringify(asked)];
  if (answer) return answer;
  if (question === "path") {
    throw new Error(`${asked.feature} is not in this file, which holds ${plural(data.features.length, "feature")}; `
      + "saematch explore on the run itself has all of them.");
  }
  throw new Error("This is not in the file; saematch explore on the run itself has it.");
}

function found(asked) {
  const other = asked.strategy && asked.strategy !== data.main;
  const step = row => ({...row, ...(other ? row.steps[asked.strategy] : {})});
  const unknown = Object.fromEntries(data.of_main.map(name => [name, null]));
  const shown = row => (other ? {...row, ...unknown} : row);
  const rows = data.features.map(step).filter(row => matches(row, asked));
  const sort = asked.sort || (asked.activates_on ? "share" : "layer");
  const order = asked.order || (sort === "share" ? "desc" : "asc");
  if (sort === "share") rows.forEach(row => { row.share = shareOf(row, asked.activates_on); });
  const sign = order === "desc" ? -1 : 1;
  const place = (a, b) => data.keys.indexOf(a.key) - data.keys.indexOf(b.key) || a.feature - b.feature;
  rows.sort((a, b) => {
    if (sort === "layer") return sign * place(a, b);
    if (a[sort] === null || b[sort] === null) return (a[sort] === null) - (b[sort] === null) || place(a, b);
    return sign * (a[sort] - b[sort]) || place(a, b);
  });
  const limit = Number(asked.limit || 50);
  const offset = Math.max(0, Math.min(Number(asked.offset || 0), Math.floor((rows.length - 1) / limit) * limit));
  return {strategy: asked.strategy || data.main, total: rows.length, limit, offset, pending: [], problems: {},
    features: rows.slice(offset, offset + limit).map(shown)};
}

// All that is said of a feature, whoever says it.
function saidOf(row) {
  const told = data.answers.evidence[`${row.key}/${row.feature}`]?.descriptions ?? [];
  return [row.description, ...told.map(one => one.text)].join("\n").toLowerCase();
}

function matches(row, asked) {
  const own = row.steps[data.main], said = saidOf(row);
  const holds = (tokens, wanted) => (tokens || []).some(token => sameToken(token, wanted));
  if (asked.text && !asked.text.toLowerCase().split(/\s+/).filter(Boolean).every(word => said.includes(word))) return false;
  if (asked.activates_on && !holds(row.activates_on, asked.activates_on) && !holds(row.peaks, asked.activates_on)) return false;
  if (asked.top_logits && !holds(row.top_logits, asked.top_logits)) return false;
  if (asked.feature && `${row.key}/${row.feature}` !== asked.feature.trim()) return false;
  if (asked.layer && !asked.layer.split(",").includes(row.key)) return false;
  if (asked.status && row.status !== asked.status) return false;
  if (asked.label && !(row.labels || []).includes(asked.label)) return false;
  const fates = {live: row.live_pair, "left out": own.partner !== null && !row.live_pair,
    dies: own.matched && own.partner === null, born: row.born};
  if (asked.pairs && !fates[asked.pairs]) return false;
  const warnings = row.warnings || [];
  const flagged = {none: row.warnings !== null && !warnings.length, some: warnings.length > 0};
  if (asked.warnings && !(flagged[asked.warnings] ?? warnings.includes(asked.warnings))) return false;
  if (asked.certain && (own.partner === null || row.certain !== (asked.certain === "yes"))) return false;
  if (asked.differs) {
    const other = row.steps[asked.differs];
    if (!other || !own.matched || other.partner === null || other.partner === own.partner) return false;
  }
  return data.ranges.every(name => {
    const least = asked[`${name}_min`], most = asked[`${name}_max`], value = row[name];
    if (least === undefined && most === undefined) return true;
    return value !== null && (least === undefined || value >= Number(least)) && (most === undefined || value <= Number(most));
  });
}

// Over the server's API, or, in an exported file, of the data that it carries.
export async function ask(question, parameters = {}) {
  const asked = Object.fromEntries(Object.entries(parameters).filter(([, value]) => value !== "" && value !== undefined));
  if (exported) return embeddedAnswer(question, asked);
  let reply;
  for (let again = 3; ; again--) {
    reply = await fetch(`/api/${question}?${new URLSearchParams(asked)}`).catch(() => {
      throw new Error("The explorer does not answer: is saematch explore still running?");
    });
    const wait = Number(reply.headers.get("retry-after"));
    if (reply.status !== 503 || !wait || !again) break;
    await new Promise((resolve) => setTimeout(resolve, 1000 * wait));
  }
  const answer = await reply.json().catch(() => {
    throw new Error(`The explorer answered ${reply.status} without saying why.`);
  });
  if (!reply.ok) throw new Error(answer.error || `The explorer answered ${reply.status}.`);
  return answer;
}

export function takeAddress(format, parameters) {
  const asked = Object.entries(parameters).filter(([, value]) => value !== "");
  return `/api/take?${new URLSearchParams([...asked, ["format", format]])}`;
}
