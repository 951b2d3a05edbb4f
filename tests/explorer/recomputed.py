"""The same answers by pandas, straight from the tables of the run."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from synthetic_meanings import JUDGE

from saematch.store.following import followed_steps
from saematch.store.reader import open_run

SLUG = "decoder+encoder+bias"


def keys_of(run: Path) -> list[str]:
    return list(json.loads((run / "manifest.json").read_text())["saes"])


def features_of(run: Path, strategy: str = "folded") -> pd.DataFrame:
    """A row per feature, with its step to the next layer under a strategy; missing is NaN or None."""
    keys = keys_of(run)
    paths = pd.read_parquet(run / "paths.parquet")
    judged = labels_of(run)
    flagged = {
        (before.key, before.feature): [str(kind) for kind in step.kinds]
        for steps in followed_steps(open_run(run)).values()
        for before, step in pairwise(steps)
    }
    frames = []
    for place, key in enumerate(keys):
        frame = paths[paths["key"] == key][["feature", "status", "key"]].sort_values("feature")
        features = pd.read_parquet(run / f"features/{key}.parquet")
        frame = frame.merge(features, on="feature", how="left")
        texts = pd.read_parquet(run / f"descriptions/activations--{key}.parquet")
        texts = texts.drop_duplicates("feature")[["feature", "text"]]
        frame = frame.merge(texts.rename(columns={"text": "description"}), on="feature", how="left")
        frame["peaks"] = frame["feature"].map(peaks_of(run, key))
        frame["warnings"] = [flagged.get((key, feature)) for feature in frame["feature"]]
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
            together = together[
                (together["a"] == key)
                & (together["b"] == after)
                & (together["strategy"] == "folded")
            ]
            of_pair = together.groupby(["feature", "partner"])
            means = of_pair[["phi", "lift"]].mean()
            means[["phi_texts", "lift_texts"]] = of_pair[["phi", "lift"]].count()
            counts = ["active", "partner_active", "joint_active"]
            means[counts] = of_pair[
                ["activation_count", "partner_activation_count", "joint_activation_count"]
            ].sum()
            means = means.reset_index()
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


def peaks_of(run: Path, key: str) -> dict[int, list[str]]:
    """Tokens on which examples of a feature are strongest, the strongest first."""
    table = pd.read_parquet(run / f"examples/{key}.parquet")
    table["token"] = [
        tokens[place] for tokens, place in zip(table["tokens"], table["place"], strict=True)
    ]
    best = table.groupby(["feature", "token"])["activation"].max().reset_index()
    best = best.sort_values(["activation", "token"], ascending=[False, True])
    return {feature: rows["token"].tolist() for feature, rows in best.groupby("feature")}


def share_of(row: dict[str, Any], token: str) -> float | None:
    """How many of a feature's activations are on a token; None where it is in its examples alone."""
    shares = [
        share
        for one, share in zip(row["activates_on"], row["activates_on_share"], strict=True)
        if same(one, token)
    ]
    return sum(shares) if shares else None


def same(one: str, other: str) -> bool:
    return one.strip(" ").lower() == other.strip(" ").lower()


def labels_of(run: Path) -> dict[tuple[str, int, int], list[str]]:
    """Distinct labels of every pair that was judged, by its first feature and the partner."""
    found: dict[tuple[str, int, int], set[str]] = {}
    for row in judged_rows(run):
        found.setdefault((row["a"], row["feature"], row["partner"]), set()).add(row["label"])
    return {pair: sorted(labels) for pair, labels in found.items()}


def judged_rows(run: Path) -> list[dict[str, Any]]:
    """Pairs with what the judge that passes its controls calls them, of both experiments."""
    answers = pd.read_parquet(run / "judgements.parquet")
    rows = []
    for experiment in ("layers", "mse"):
        sample = pd.read_parquet(run / f"judging/{experiment}/sample.parquet")
        mine = answers[(answers["experiment"] == experiment) & (answers["judge"] == JUDGE)]
        both = sample.merge(mine.drop(columns="experiment"), on="question")
        both = both[(both["kind"] == "pair") & ~both["swapped"] & both["label"].notna()]
        rows += [{**row, "experiment": experiment} for row in both.to_dict("records")]
    return rows


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
    for name, columns in (
        ("activates_on", ("activates_on", "peaks")),
        ("top_logits", ("top_logits",)),
    ):
        if name in asked:
            found = pd.Series(False, index=frame.index)
            for column in columns:
                found |= frame[column].map(
                    lambda tokens, wanted=asked[name]: (
                        isinstance(tokens, (list, np.ndarray))
                        and any(same(one, wanted) for one in tokens)
                    )
                )
            keep &= found
    if "warnings" in asked:
        wanted = {"none": lambda kinds: not kinds, "some": bool}.get(
            asked["warnings"], lambda kinds: asked["warnings"] in kinds
        )
        keep &= frame["warnings"].map(lambda kinds: kinds is not None and wanted(kinds))
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
    for name in (
        "mse",
        "cost",
        "cosine",
        "margin",
        "activation_frequency",
        "quantile",
        "phi",
        "lift",
        "active",
    ):
        if f"{name}_min" in asked:
            keep &= frame[name] >= float(asked[f"{name}_min"])
        if f"{name}_max" in asked:
            keep &= frame[name] <= float(asked[f"{name}_max"])
    found = frame[keep]
    sort = asked.get("sort", "share" if "activates_on" in asked else "layer")
    ascending = asked.get("order", "desc" if sort == "share" else "asc") == "asc"
    if sort == "share":
        shares = [share_of(row, asked["activates_on"]) for row in found.to_dict("records")]
        found = found.assign(share=pd.Series(shares, index=found.index, dtype=float))
    if sort == "layer":
        return found.sort_values(["place", "feature"], ascending=ascending)
    found = found.sort_values(["place", "feature"])
    return found.sort_values(sort, ascending=ascending, kind="stable", na_position="last")
