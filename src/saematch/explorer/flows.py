"""The whole run at once: how features flow from layer to layer, and how near the pairs are.

1. Steps of live pairs are put into four bands by cost, quarters of all such steps of the run; no pair costs
   exactly what parts two of them.
2. A feature stands in its layer in the band of its step to the next one; others are `left out` (not both
   live), `dies` (matched to nothing), `unknown` (their matching is missing) or `last` (no next layer).
3. A flow counts features by their own band and by their partner's.  `born`: nothing was matched to it.
4. Histograms count live pairs of every two layers over shared bins, even in the logarithm of the value.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from saematch.explorer.catalogue import Catalogue
from saematch.explorer.database import Database
from saematch.explorer.selection import check_names, one_of, whole_number

MEASURES = ("cost", "mse")
_BAND = """CASE
  WHEN next IS NULL THEN 'last'
  WHEN NOT matched THEN 'unknown'
  WHEN partner IS NULL THEN 'dies'
  WHEN NOT live_pair THEN 'left out'
  WHEN cost <= $q1 THEN 'q1' WHEN cost <= $q2 THEN 'q2' WHEN cost <= $q3 THEN 'q3' ELSE 'q4' END"""


class Flows:
    """Answers for the view of the whole; the last one of each kind is kept."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[str, dict[str, Any]]] = {}

    def answer(
        self, catalogue: Catalogue, database: Database, asked: Mapping[str, str]
    ) -> dict[str, Any]:  # fmt: skip
        """Flows, births, deaths, and histograms of a measure with so many bins."""
        check_names(asked, ("measure", "bins"))
        measure = one_of(asked, "measure", MEASURES, "mse")
        bins = whole_number(asked, "bins", 24, 4, 60)
        files = catalogue.all()
        made_from = json.dumps(list(files.values()))
        kept = self._kept.get(f"{measure} {bins}")
        if kept is None or kept[0] != made_from:
            kept = made_from, _answer(catalogue, database, files, measure, bins)
            self._kept[f"{measure} {bins}"] = kept
        return {**kept[1], "problems": catalogue.problems}


def _answer(
    catalogue: Catalogue, database: Database, files: Mapping[str, str], measure: str, bins: int
) -> dict[str, Any]:
    if not files:
        return {"measure": measure, "edges": [], "columns": [], "flows": [], "histograms": []}
    every = list(files.values())
    [quarters] = database.rows(
        "SELECT quantile_cont(cost, 0.25) AS q1, quantile_cont(cost, 0.5) AS q2, "
        "quantile_cont(cost, 0.75) AS q3 FROM read_parquet($files) WHERE live_pair",
        {"files": every},
    )
    quarters = {name: _between(database, every, value) for name, value in quarters.items()}
    columns = [
        {
            "key": key,
            "bands": {
                row["band"]: row["features"]
                for row in database.rows(
                    f"SELECT {_BAND} AS band, count(*) AS features FROM read_parquet($file) GROUP BY band",
                    {"file": file, **quarters},
                )
            },
            "born": database.rows(
                "SELECT count(*) AS features FROM read_parquet($file) WHERE born", {"file": file}
            )[0]["features"],
        }
        for key, file in files.items()
    ]
    steps = [(a, b) for a, b in catalogue.run.adjacent if a in files and b in files]
    flows = [
        {"a": a, "b": b, **row}
        for a, b in steps
        for row in database.rows(
            f"WITH one AS (SELECT partner, {_BAND} AS band FROM read_parquet($a)), "
            f"other AS (SELECT feature, {_BAND} AS band FROM read_parquet($b)) "
            'SELECT one.band AS "from", other.band AS "to", count(*) AS features '
            "FROM one JOIN other ON one.partner = other.feature GROUP BY ALL ORDER BY ALL",
            {"a": files[a], "b": files[b], **quarters},
        )
    ]
    edges, histograms = _histograms(database, files, steps, measure, bins)
    return {
        "measure": measure,
        "quarters": [quarters["q1"], quarters["q2"], quarters["q3"]],
        "columns": columns,
        "flows": flows,
        "edges": edges,
        "histograms": histograms,
    }


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


def _histograms(
    database: Database,
    files: Mapping[str, str],
    steps: Sequence[tuple[str, str]],
    measure: str,
    bins: int,
) -> tuple[list[float], list[dict[str, Any]]]:
    assert measure in MEASURES
    [ends] = database.rows(
        f"SELECT min({measure}) AS least, max({measure}) AS most FROM read_parquet($files) "
        f"WHERE live_pair AND {measure} > 0",
        {"files": list(files.values())},
    )
    if ends["least"] is None:
        return [], [{"a": a, "b": b, "counts": [], "median": None} for a, b in steps]
    low, high = math.log(ends["least"]), math.log(ends["most"])
    width = (high - low) / bins or 1.0
    edges = [math.exp(low + width * n) for n in range(bins + 1)]
    # A bar leads to the features of its range: its ends must hold what the logarithm's rounding moved.
    edges[0], edges[-1] = ends["least"], max(edges[-1], ends["most"])
    found = []
    for a, b in steps:
        counts = [0] * bins
        rows = database.rows(
            "SELECT least(greatest(len(list_filter($edges::DOUBLE[], lambda edge: edge <= "
            f"{measure})) - 1, 0), $last)::INTEGER AS bin, count(*) AS pairs "
            "FROM read_parquet($file) WHERE live_pair GROUP BY bin",
            {"file": files[a], "edges": edges, "last": bins - 1},
        )
        for row in rows:
            counts[row["bin"]] = row["pairs"]
        [middle] = database.rows(
            f"SELECT median({measure}) AS median FROM read_parquet($file) WHERE live_pair",
            {"file": files[a]},
        )
        found.append({"a": a, "b": b, "counts": counts, "median": middle["median"]})
    return edges, found
