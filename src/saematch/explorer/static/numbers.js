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
