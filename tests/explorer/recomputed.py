"""The same answers by pandas, straight from the tables of the run."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

SLUG = "decoder+encoder+bias"


def keys_of(run: Path) -> list[str]:
    return list(json.loads((run / "manifest.json").read_text())["saes"])


def features_of(run: Path, strategy: str = "folded") -> pd.DataFrame:
    """A row a feature, with its step to the next layer under a strategy; missing is NaN or None."""
    keys = keys_of(run)
    paths = pd.read_parquet(run / "paths.parquet")
    judged = labels_of(run)
    frames = []
    for place, key in enumerate(keys):
        frame = paths[paths["key"] == key][["feature", "status", "key"]].sort_values("feature")
        features = pd.read_parquet(run / f"features/{key}.parquet")
        frame = frame.merge(features, on="feature", how="left")
        texts = pd.read_parquet(run / f"descriptions/activations--{key}.parquet")
        texts = texts.drop_duplicates("feature")[["feature", "text"]]
        frame = frame.merge(texts.rename(columns={"text": "description"}), on="feature", how="left")
        frame["place"] = place
        if place + 1 < len(keys):
            after = keys[place + 1]
            folded = matching(run, "folded", key, after)
            live = (folded["status"] == "live") & (folded["partner_status"] == "live")
            cost = folded["cost"]
            folded["quantile"] = [
                (cost[live] <= value).mean() if alive else None
                for value, alive in zip(cost, live, strict=True)
            ]
            chosen = matching(run, strategy, key, after)[
                ["feature", "partner", "cost", "mse_decoder", "cosine", "margin"]
            ]
            frame = frame.merge(chosen.rename(columns={"mse_decoder": "mse"}), on="feature")
            frame = frame.merge(
                folded[["feature", "certain", "quantile", "partner"]].rename(
                    columns={"partner": "folded_partner"}
                ),
                on="feature",
            )
            frame["next"] = after
            together = pd.concat(
                map(pd.read_parquet, sorted(run.glob("evaluation/pairs/*.parquet")))
            )
            together = together[(together["a"] == key) & (together["strategy"] == "folded")]
            means = together.groupby(["feature", "partner"])[["phi", "lift"]].mean().reset_index()
            means = means.rename(columns={"partner": "folded_partner"})
            frame = frame.merge(means, on=["feature", "folded_partner"], how="left")
            frame["partner"] = frame["partner"].where(frame["partner"] >= 0)
            frame["folded_partner"] = frame["folded_partner"].where(frame["folded_partner"] >= 0)
            frame["labels"] = [
                judged.get((key, feature, partner), [])
                for feature, partner in zip(frame["feature"], frame["folded_partner"], strict=True)
            ]
        else:
            frame["labels"] = [[] for _ in range(len(frame))]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def matching(run: Path, strategy: str, a: str, b: str) -> pd.DataFrame:
    return pd.read_parquet(run / f"matchings/{strategy}/{SLUG}/{a}--{b}.parquet")


def labels_of(run: Path) -> dict[tuple[str, int, int], list[str]]:
    """Distinct labels of every pair that was judged, by its first feature and the partner."""
    sample = pd.read_parquet(run / "judging/layers/sample.parquet")
    answers = pd.read_parquet(run / "judgements.parquet")
    both = sample.merge(answers, on="question")
    both = both[(both["kind"] == "pair") & ~both["swapped"] & both["label"].notna()]
    found: dict[tuple[str, int, int], set[str]] = {}
    for row in both.to_dict("records"):
        found.setdefault((row["a"], row["feature"], row["partner"]), set()).add(row["label"])
    return {pair: sorted(labels) for pair, labels in found.items()}


def selected(
    frame: pd.DataFrame, asked: dict[str, Any], other: pd.DataFrame | None = None
) -> pd.DataFrame:
    """The rows that a selection means; `other`: the features under the strategy of `differs`."""
    keep = pd.Series(True, index=frame.index)
    if "layer" in asked:
        keep &= frame["key"].isin(asked["layer"].split(","))
    if "feature" in asked:
        keep &= (frame["key"] + "/" + frame["feature"].astype(str)) == asked["feature"]
    for word in asked.get("text", "").split():
        keep &= frame["description"].fillna("").str.lower().str.contains(word.lower(), regex=False)
    for name, column in (("fires", "fires_on"), ("promotes", "promotes")):
        if name in asked:
            wanted = asked[name].strip(" ").lower()
            keep &= frame[column].map(
                lambda tokens, wanted=wanted: any(
                    one.strip(" ").lower() == wanted for one in tokens
                )
            )
    if "status" in asked:
        keep &= frame["status"] == asked["status"]
    if "label" in asked:
        keep &= frame["labels"].map(lambda labels: asked["label"] in labels)
    if "certain" in asked:
        certain = frame["certain"].map(
            lambda value: value is True
        )  # of the folded pair, whatever is shown
        keep &= frame["folded_partner"].notna() & (certain == (asked["certain"] == "yes"))
    if "differs" in asked:
        assert other is not None
        keep &= other["partner"].notna() & ~(frame["folded_partner"] == other["partner"])
    for name in ("mse", "cost", "cosine", "margin", "density", "quantile", "phi", "lift"):
        if f"{name}_min" in asked:
            keep &= frame[name] >= float(asked[f"{name}_min"])
        if f"{name}_max" in asked:
            keep &= frame[name] <= float(asked[f"{name}_max"])
    found = frame[keep]
    sort, ascending = asked.get("sort", "layer"), asked.get("order", "asc") == "asc"
    if sort == "layer":
        return found.sort_values(["place", "feature"], ascending=ascending)
    found = found.sort_values(["place", "feature"])
    return found.sort_values(sort, ascending=ascending, kind="stable", na_position="last")
