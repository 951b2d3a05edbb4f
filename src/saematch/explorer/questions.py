"""What the page asks: features found, one followed, the whole, strategies compared."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saematch.errors import UsageError
from saematch.explorer.index import Index
from saematch.run.steps import doubts_of

PAGE = 50
MOST = 5_000
"""Rows that a selection may take away at once."""
SORTS = {
    "key": "layer, key, feature", "mse": "mse", "cost": "cost", "cosine": "cosine", "margin": "margin",
    "density": "density", "phi": "phi", "lift": "lift", "quantile": "quantile",
}  # fmt: skip
RANGES = ("mse", "cost", "cosine", "margin", "density", "phi", "lift", "quantile")
COLUMNS = (
    "key, layer, feature, status, path, partner, cost, mse, cosine, margin, certain, quantile, density, "
    "text, fires_on, promotes, label, phi, lift"
)
_PLACE = re.compile(r"\s*(-?[\w.]+)\s*/\s*(\d+)\s*")
BARS = 24


@dataclass(frozen=True)
class Page:
    """Some of the rows of a selection."""

    rows: list[dict[str, Any]]
    total: int


def find(index: Index, asked: Mapping[str, str], most: int = PAGE) -> Page:
    """Features by text, place and values; `asked` holds what the page's address holds.

    text: words that must all be in the description; token: fires on or promotes it; key; status; label;
    {value}_min, {value}_max; sort, descending; page.  Raises UsageError for what cannot be.
    """
    where, values = _where(index, asked)
    order = asked.get("sort", "key")
    if order not in SORTS:
        raise UsageError(f"needed to sort by one of {', '.join(SORTS)}, found '{order}'")
    down = "DESC" if asked.get("descending") == "1" else "ASC"
    sorting = ", ".join(f"{name} {down} NULLS LAST" for name in SORTS[order].split(", "))
    page = _number(asked, "page", 1.0)
    total = index.ask(f"SELECT count(*) AS n FROM features WHERE {where}", values)[0]["n"]
    rows = index.ask(
        f"SELECT {COLUMNS} FROM features WHERE {where} ORDER BY {sorting}, layer, key, feature "
        "LIMIT ? OFFSET ?",
        [*values, most, max(0, int(page) - 1) * most],
    )
    return Page([_plain(row) for row in rows], int(total))


def _where(index: Index, asked: Mapping[str, str]) -> tuple[str, list[Any]]:
    parts, values = ["true"], []

    def add(part: str, *given: Any) -> None:
        parts.append(part)
        values.extend(given)

    text = asked.get("text", "").strip()
    if place := _PLACE.fullmatch(text):
        key = index.run.key(place[1])
        add("key = ? AND feature = ?", key, int(place[2]))
    else:
        for word in text.lower().split():
            add("contains(lower(text), ?)", word)
    if token := asked.get("token", ""):
        bare = token.strip().lower()
        for_any = "len(list_filter({}, lambda x: lower(trim(x)) = ?)) > 0"
        add(f"({for_any.format('fires_on')} OR {for_any.format('promotes')})", bare, bare)
    for name in ("key", "status", "label"):
        if asked.get(name):
            add(f"{name} = ?", asked[name])
    for name in RANGES:
        for end, sign in (("min", ">="), ("max", "<=")):
            if asked.get(f"{name}_{end}"):
                add(f"{name} {sign} ?", _number(asked, f"{name}_{end}"))
    return " AND ".join(parts), values


def follow(index: Index, key: str, feature: int) -> list[dict[str, Any]]:
    """The path through a feature, a row a layer; what belongs to a step is in the row of its end.

    Raises UsageError for a layer or a feature that is not there.
    """
    key = index.run.key(key)
    here = index.ask(
        f"SELECT {COLUMNS} FROM features WHERE key = ? AND feature = ?", [key, feature]
    )
    if not here:
        raise UsageError(f"needed a feature of layer {key}, found {feature}")
    if here[0]["path"] is None:
        return [_plain(here[0])]
    rows = index.ask(
        f"SELECT {COLUMNS} FROM features WHERE path = ? ORDER BY layer, key", [here[0]["path"]]
    )
    found: list[dict[str, Any]] = []
    for row in rows:
        card = _plain(row)
        before = found[-1] if found else None
        card["step"] = None if before is None else _step(index, before, card)
        found.append(card)
    return found


def _step(index: Index, before: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, Any]:
    """How the path comes from the layer before, and why to doubt it."""
    step = {name: before[name] for name in (
        "cost", "mse", "cosine", "margin", "certain", "quantile", "label", "phi", "lift"
    )}  # fmt: skip
    others: list[dict[str, Any]] = []
    near = index.candidates(before["key"], here["key"])
    if near is not None:
        others = index.ask(
            "SELECT c.candidate, c.cost, c.cosine, f.text FROM read_parquet(?) c LEFT JOIN features f ON "
            "f.key = ? AND f.feature = c.candidate WHERE c.feature = ? AND c.candidate <> ? ORDER BY rank",
            [near, here["key"], before["feature"], here["feature"]],
        )
    doubts = [
        f"feature {one['key']}/{one['feature']} is {one['status']}"
        for one in (before, here)
        if one["status"] != "live"
    ][:1]
    cost = step["cost"]
    extra = others[0]["cost"] - cost if others and cost is not None else None
    doubts += doubts_of(cost, step["quantile"], extra, bool(step["certain"]))
    return {**step, "runners_up": [_plain(one) for one in others], "doubts": doubts}


def contexts(index: Index, key: str, feature: int, most: int = 6) -> list[dict[str, Any]]:
    """Where a feature fires most, from both halves of the documents, the strongest first."""
    path = index.file(f"contexts/{index.run.key(key)}.parquet")
    if path is None:
        return []
    rows = index.ask(
        "SELECT corpus, document, activation, place, tokens, activations FROM read_parquet(?) WHERE "
        "feature = ? ORDER BY activation DESC LIMIT ?",
        [path, feature, most],
    )
    return [_plain(row) for row in rows]


def whole(index: Index) -> dict[str, Any]:
    """Layers, what flows between them by quantile of cost, births and deaths, distributions of MSE."""
    after = dict(index.adjacent)
    layers = index.ask(
        "SELECT key, any_value(layer) AS layer, count(*) AS features, count(*) FILTER (status = 'live') AS "
        "live, count(text) AS described FROM features GROUP BY key ORDER BY layer, key"
    )
    flows = []
    for a, b in after.items():
        first = index.ask(
            "SELECT count(*) FILTER (partner >= 0) AS kept, count(*) FILTER (partner < 0) AS died, "
            "count(*) FILTER (certain) AS certain, min(mse) AS low, max(mse) AS high, median(mse) AS median "
            "FROM features WHERE key = ?",
            [a],
        )[0]
        if not first["kept"]:
            continue
        low, high = float(first["low"]), float(first["high"])
        width = max((high - low) / BARS, 1e-30)
        bars = index.ask(
            "SELECT least(floor((mse - ?) / ?), ?)::INTEGER AS bar, count(*) AS n FROM features "
            "WHERE key = ? AND mse IS NOT NULL AND status = 'live' GROUP BY bar ORDER BY bar",
            [low, width, BARS - 1, a],
        )
        counts = {int(row["bar"]): int(row["n"]) for row in bars}
        edges = [low + width * n for n in range(BARS + 1)]
        taken = index.ask(
            "SELECT count(DISTINCT partner) AS n FROM features WHERE key = ? AND partner >= 0", [a]
        )
        size = next(row["features"] for row in layers if row["key"] == b)
        flows.append(
            {
                "a": a,
                "b": b,
                **_plain(first),
                "born": int(size) - int(taken[0]["n"]),
                "edges": edges,
                "counts": [counts.get(n, 0) for n in range(BARS)],
            }
        )
    return {"layers": [_plain(row) for row in layers], "flows": flows}


def compare(index: Index, asked: Mapping[str, str], most: int = PAGE) -> dict[str, Any]:
    """Where two strategies give live features different partners, and which fires together more often."""
    pairs = [f"{a}--{b}" for a, b in index.adjacent]
    pair = asked.get("pair") or (pairs[0] if pairs else "")
    first, second = asked.get("first", "folded"), asked.get("second", "unfolded")
    if pair not in pairs:
        raise UsageError(f"needed a pair among {', '.join(pairs) or 'none yet'}, found '{pair}'")
    for one in (first, second):
        if one not in index.strategies:
            raise UsageError(
                f"needed strategies among {', '.join(index.strategies)}, found '{one}'"
            )
    a, b = pair.split("--")
    files = [index.matching(a, b, one) for one in (first, second)]
    if None in files:
        return {
            "pair": pair,
            "first": first,
            "second": second,
            "rows": [],
            "total": 0,
            "missing": True,
        }
    scored = index.file("evaluation/pairs.parquet")
    score = (
        "(SELECT feature, avg(joint_firings / nullif(firings, 0)) AS score, avg(phi) AS phi FROM "
        "read_parquet(?) WHERE a = ? AND b = ? AND strategy = ? GROUP BY feature)"
    )
    none = "(SELECT NULL::INTEGER AS feature, NULL::FLOAT AS score, NULL::FLOAT AS phi WHERE false)"
    base = (
        "FROM read_parquet(?) x JOIN read_parquet(?) y USING (feature) "
        f"LEFT JOIN {score if scored else none} s USING (feature) "
        f"LEFT JOIN {score if scored else none} t USING (feature) "
    )
    live = "WHERE x.status = 'live'"
    values: list[Any] = [*files]
    if scored:
        values += [scored, a, b, first, scored, a, b, second]
    apart = "x.partner <> y.partner"
    counts = index.ask(
        f"SELECT count(*) AS live, count(*) FILTER ({apart}) AS apart, "
        f"count(*) FILTER ({apart} AND s.score > t.score) AS first_better, "
        f"count(*) FILTER ({apart} AND s.score < t.score) AS second_better, "
        f"count(*) FILTER ({apart} AND s.score = t.score) AS alike {base} {live}",
        values,
    )[0]
    page = max(1, int(_number(asked, "page", 1.0)))
    texts = (
        "LEFT JOIN features d ON d.key = ? AND d.feature = x.feature "
        "LEFT JOIN features p ON p.key = ? AND p.feature = x.partner "
        "LEFT JOIN features q ON q.key = ? AND q.feature = y.partner "
    )
    rows = index.ask(
        "SELECT x.feature, x.partner AS first_partner, y.partner AS second_partner, x.cost AS first_cost, "
        "y.cost AS second_cost, s.score AS first_score, t.score AS second_score, s.phi AS first_phi, "
        f"t.phi AS second_phi, d.text AS text, p.text AS first_text, q.text AS second_text {base} "
        f"{texts} {live} AND {apart} "
        "ORDER BY abs(coalesce(s.score - t.score, 0)) DESC, x.feature LIMIT ? OFFSET ?",
        [*values, a, b, b, most, (page - 1) * most],
    )
    return {
        "pair": pair, "first": first, "second": second, "scored": scored is not None,
        "rows": [_plain(row) for row in rows], "total": int(counts["apart"]), **_plain(counts),
    }  # fmt: skip


def compare_runs(index: Index, other: Index, asked: Mapping[str, str]) -> dict[str, Any]:
    """How often two runs give the live features of the same SAEs the same partner, pair by pair."""
    mine, theirs = index.run.manifest["saes"], other.run.manifest["saes"]
    same = {key for key in mine if key in theirs and mine[key]["sha256"] == theirs[key]["sha256"]}
    rows = []
    for a, b in index.adjacent:
        files = [one.matching(a, b) for one in (index, other)]
        if not {a, b} <= same or None in files:
            continue
        found = index.ask(
            "SELECT count(*) AS live, count(*) FILTER (x.partner = y.partner) AS alike "
            "FROM read_parquet(?) x JOIN read_parquet(?) y USING (feature) WHERE x.status = 'live'",
            files,
        )[0]
        rows.append({"a": a, "b": b, **_plain(found)})
    return {"other": str(other.run.path), "pairs": rows, "not_the_same": sorted(set(mine) - same)}


def _number(asked: Mapping[str, str], name: str, usual: float | None = None) -> float:
    text = asked.get(name)
    if not text and usual is not None:
        return usual
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or abs(value) > 1e12:
        raise UsageError(f"needed a number as {name}, found '{(text or '')[:40]}'")
    return value


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no infinity and no NaN: they are nothing there."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
