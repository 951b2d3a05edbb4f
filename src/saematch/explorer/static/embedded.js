// The answers of an exported file.  It carries whole answers, and the features of the paths it was made of.

import {plural} from "./numbers.js";
import {sameToken} from "./tokens.js";

const RANGES = ["mse", "cost", "cosine", "margin", "activation_frequency", "quantile", "phi", "lift", "active"];
const OF_MAIN = {certain: null, quantile: null, labels: null, phi: null, lift: null, phi_texts: null, lift_texts: null, active: null,
  partner_active: null, joint_active: null, warnings: null};

export function embeddedAnswer(data, question, asked) {
  if (question === "features") return found(data, asked);
  const place = question === "path" ? data.places[asked.feature] : null;
  if (place) return {...data.paths[place[0]], here: place[1]};
  const kept = data.answers[question];
  const answer = kept && kept[asked.feature ?? JSON.stringify(asked)];
  if (answer) return answer;
  if (question === "path") {
    throw new Error(`${asked.feature} is not in this file, which holds ${plural(data.features.length, "feature")}; `
      + "saematch explore on the run itself has all of them.");
  }
  throw new Error("This is not in the file; saematch explore on the run itself has it.");
}

function found(data, asked) {
  const main = data.main;
  const other = asked.strategy && asked.strategy !== main;
  const step = row => (other ? {...row, ...row.steps[asked.strategy]} : row);
  const shown = row => (other ? {...row, ...OF_MAIN} : row);
  const rows = data.features.map(row => ({...step(row)})).filter(row => matches(row, asked, saidOf(data, row), main));
  const sort = asked.sort || (asked.activates_on ? "share" : "layer");
  const order = asked.order || (sort === "share" ? "desc" : "asc");
  if (sort === "share") rows.forEach(row => { row.share = shareOf(row, asked.activates_on); });
  const keys = data.keys;
  const sign = order === "desc" ? -1 : 1;
  const place = (a, b) => keys.indexOf(a.key) - keys.indexOf(b.key) || a.feature - b.feature;
  rows.sort((a, b) => {
    if (sort === "layer") return sign * place(a, b);
    if (a[sort] === null || b[sort] === null) return (a[sort] === null) - (b[sort] === null) || place(a, b);
    return sign * (a[sort] - b[sort]) || place(a, b);
  });
  const limit = Number(asked.limit || 50);
  const offset = Math.max(0, Math.min(Number(asked.offset || 0), Math.floor((rows.length - 1) / limit) * limit));
  return {strategy: asked.strategy || main, total: rows.length, limit, offset, pending: [], problems: {},
    features: rows.slice(offset, offset + limit).map(shown)};
}

// How much of a feature's activation is on a token; null if it is in its examples alone.
function shareOf(row, token) {
  const shares = (row.activates_on || []).flatMap((one, place) => (sameToken(one, token) ? [row.activates_on_share[place]] : []));
  return shares.length ? shares.reduce((sum, one) => sum + one, 0) : null;
}

// All that is said of a feature, whoever says it.
function saidOf(data, row) {
  const told = data.answers.evidence[`${row.key}/${row.feature}`]?.descriptions ?? [];
  return [row.description, ...told.map(one => one.text)].join("\n").toLowerCase();
}

function matches(row, asked, said, main) {
  const own = row.steps[main];
  const holds = (tokens, wanted) => (tokens || []).some(token => sameToken(token, wanted));
  if (asked.text) {
    if (!asked.text.toLowerCase().split(/\s+/).filter(Boolean).every(word => said.includes(word))) return false;
  }
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
  return RANGES.every(name => {
    const least = asked[`${name}_min`], most = asked[`${name}_max`], value = row[name];
    if (least === undefined && most === undefined) return true;
    return value !== null && (least === undefined || value >= Number(least)) && (most === undefined || value <= Number(most));
  });
}
