"""The whole run at once: how features flow from layer to layer, and how near the pairs are.

1. Steps of live pairs are put into four bands by cost, quarters of all such steps of the run; no pair costs
   exactly what parts two of them.
2. A feature stands in its layer in the band of its step to the next one; others are `left out` (not both
   live), `dies` (matched to nothing), `unknown` (their matching is missing) or `last` (no next layer).
3. A flow counts features by their own band and by their partner's.  `born`: nothing was matched to it.
4. Shares of fates (store/becoming.py) are of live features.
5. Histograms count live pairs of every two layers over shared bins, even in the logarithm of the value.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa

from saematch.errors import InputError
from saematch.explorer.catalogue import Catalogue
from saematch.explorer.database import Database
from saematch.explorer.run_files import RunFiles
from saematch.explorer.search import check_names, one_of, whole_number
from saematch.store.becoming import fate_shares

MEASURES = ("cost", "mse")
_BAND = """CASE
  WHEN next IS NULL THEN 'last'
  WHEN NOT matched THEN 'unknown'
  WHEN partner IS NULL THEN 'dies'
  WHEN NOT live_pair THEN 'left out'
  WHEN cost <= $q1 THEN 'q1' WHEN cost <= $q2 THEN 'q2' WHEN cost <= $q3 THEN 'q3' ELSE 'q4' END"""


def whole(catalogue: Catalogue, asked: Mapping[str, str]) -> dict[str, Any]:
    """Flows, births, deaths, and histograms of a measure with so many bins."""
    check_names(asked, ("measure", "bins"))
    measure = one_of(asked, "measure", MEASURES, "mse")
    bins = whole_number(asked, "bins", 24, 4, 60)
    files = catalogue.all()
    steps = tuple((a, b) for a, b in catalogue.run.adjacent if a in files and b in files)
    answer = _whole(catalogue.database, tuple(files.items()), steps, measure, bins)
    return {**answer, **_fates(catalogue.run), "problems": catalogue.problems}


def _fates(run: RunFiles) -> dict[str, Any]:
    """Shares of what becomes of live features, of every two layers; why there are none, in words."""
    try:
        told = fate_shares(run)
    except (InputError, pa.ArrowException, LookupError, TypeError, ValueError) as error:
        return {"fates": [], "untold": [f"what becomes of features is left out: {error}"]}
    fates = [{**vars(one), "shares": one.shares, "born": one.born} for one in told]
    return {
        "fates": fates,
        "untold": list(dict.fromkeys(note for one in told for note in one.notes)),
    }


@lru_cache(maxsize=4)
def _whole(
    database: Database,
    indexes: tuple[tuple[str, str], ...],
    steps: tuple[tuple[str, str], ...],
    measure: str,
    bins: int,
) -> dict[str, Any]:
    if not indexes:
        return {"measure": measure, "edges": [], "columns": [], "flows": [], "histograms": []}
    files = dict(indexes)
    every = list(files.values())
    [parts] = database.rows(
        "SELECT quantile_cont(cost, [0.25, 0.5, 0.75]) AS costs FROM read_parquet($files) WHERE live_pair",
        {"files": every},
    )
    quarters = [_between(database, every, cost) for cost in parts["costs"] or [None] * 3]
    named = dict(zip(("q1", "q2", "q3"), quarters, strict=True))
    columns = []
    for key, file in files.items():
        rows = database.rows(
            f"SELECT {_BAND} AS band, count(*) AS features, count(*) FILTER (born) AS born "
            "FROM read_parquet($file) GROUP BY band",
            {"file": file, **named},
        )
        bands = {row["band"]: row["features"] for row in rows}
        columns.append({"key": key, "bands": bands, "born": sum(row["born"] for row in rows)})
    flows = [
        {"a": a, "b": b, **row}
        for a, b in steps
        for row in database.rows(
            f"WITH one AS (SELECT partner, {_BAND} AS band FROM read_parquet($a)), "
            f"other AS (SELECT feature, {_BAND} AS band FROM read_parquet($b)) "
            'SELECT one.band AS "from", other.band AS "to", count(*) AS features '
            "FROM one JOIN other ON one.partner = other.feature GROUP BY ALL ORDER BY ALL",
            {"a": files[a], "b": files[b], **named},
        )
    ]
    edges = _edges(database, every, measure, bins)
    histograms = [
        {"a": a, "b": b, **_histogram(database, files[a], measure, edges)} for a, b in steps
    ]
    return {
        "measure": measure, "quarters": quarters, "columns": columns, "flows": flows, "edges": edges,
        "histograms": histograms,
    }  # fmt: skip


def _between(database: Database, files: Sequence[str], cost: float | None) -> float | None:
    """A cost that no pair has, above that of every pair that costs at most `cost`, below all others'."""
    if cost is None:
        return None
    [ends] = database.rows(
        "SELECT max(cost) FILTER (cost <= $cost) AS below, min(cost) FILTER (cost > $cost) AS above "
        "FROM read_parquet($files) WHERE live_pair",
        {"files": list(files), "cost": cost},
    )
    return cost if ends["above"] is None else (ends["below"] + ends["above"]) / 2


def _edges(database: Database, files: Sequence[str], measure: str, bins: int) -> list[float]:
    [ends] = database.rows(
        f"SELECT min({measure}) AS least, max({measure}) AS most FROM read_parquet($files) "
        f"WHERE live_pair AND {measure} > 0",
        {"files": list(files)},
    )
    if ends["least"] is None:
        return []
    low, high = math.log(ends["least"]), math.log(ends["most"])
    width = (high - low) / bins or 1.0
    edges = [math.exp(low + width * n) for n in range(bins + 1)]
    # A bar leads to the features of its range: its ends must hold what the logarithm's rounding moved.
    edges[0], edges[-1] = ends["least"], max(edges[-1], ends["most"])
    return edges


def _histogram(database: Database, file: str, measure: str, edges: list[float]) -> dict[str, Any]:
    if not edges:
        return {"counts": [], "median": None}
    rows = database.rows(
        "SELECT least(greatest(len(list_filter($edges::DOUBLE[], lambda edge: edge <= "
        f"{measure})) - 1, 0), $last)::INTEGER AS bin, count(*) AS pairs "
        "FROM read_parquet($file) WHERE live_pair GROUP BY bin",
        {"file": file, "edges": edges, "last": len(edges) - 2},
    )
    counts = {row["bin"]: row["pairs"] for row in rows}
    [middle] = database.rows(
        f"SELECT median({measure}) AS median FROM read_parquet($file) WHERE live_pair",
        {"file": file},
    )
    return {"counts": [counts.get(n, 0) for n in range(len(edges) - 1)], **middle}
