// What is shown stands in the address after "#": links can be shared, and the back button works.

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

export function featureName(key, feature) {
  return `${key}/${feature}`;
}

export function followAddress(key, feature) {
  return address("follow", {feature: featureName(key, feature)});
}
