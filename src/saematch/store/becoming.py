"""What becomes of one feature, in parts and in words: fate, partners, origins, and the path that follows it.

The command line, the report and the explorer all say it by `Becoming.sentence`.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from saematch.stats import share_interval
from saematch.store.names import FOLLOWED_NAME, fates_name
from saematch.types import EVEN, FOLLOW_WAYS, Fate, Interval

if TYPE_CHECKING:
    from saematch.store.tables import Tables

NAMED = 3
"""Features that a sentence names of several; the others are counted."""


@dataclass(frozen=True)
class Other:
    """A feature of another SAE."""

    key: str
    feature: int
    probability: float | None
    """That it and the feature that is asked for are the same; None: not known."""

    @property
    def name(self) -> str:
        return f"{self.key}/{self.feature}"


@dataclass(frozen=True)
class Member:
    """A consensus path at a layer; probabilities are None at its start, and where they are not known."""

    key: str
    feature: int
    status: str
    cosine: float | None
    """Of decoder rows, with the member before."""
    probability: float | None
    """That it and the member before are the same."""
    start_probability: float | None
    """That it and the path's start are the same."""

    @property
    def name(self) -> str:
        return f"{self.key}/{self.feature}"


@dataclass(frozen=True)
class Becoming:
    """What becomes of a feature at the next SAE, and where it comes from."""

    key: str
    feature: int
    following: str | None
    """The next SAE; None: there is none."""
    before: str | None
    """The SAE before; None: there is none."""
    fate: str | None = None
    """None: there is no next SAE, or its fates are not told yet."""
    probability: float | None = None
    """That any feature of the next SAE is the same."""
    partners: tuple[Other, ...] = ()
    """Features of the next SAE that count, the most probable first."""
    candidates: tuple[Other, ...] = ()
    """Those that may be the same, whether they count or not; the most probable first."""
    merged: tuple[Other, ...] = ()
    """Other features that merge into its partner, with their probability to be the same as that."""
    origins: tuple[Other, ...] = ()
    """Features of the SAE before that count it as a partner, the most probable first."""
    born: bool | None = None
    """No feature of the SAE before is the same; None: there is none before, or it is not known."""
    path: tuple[Member, ...] = ()
    """The consensus path that starts at the feature, else the one through it whose start is most probably
    the same; empty: it is not made yet."""
    notes: tuple[str, ...] = ()
    """Why the fate is not known."""

    @property
    def name(self) -> str:
        return f"{self.key}/{self.feature}"

    @property
    def sentence(self) -> str:
        """All that is known, in words: its fate and where its path leads; then where it comes from."""
        parts = [self._fate] if self.following is not None else []
        if reached := self._reached:
            parts.append(reached)
        said = ["; ".join(parts)] if parts else []
        if origin := self._origin:
            said.append(origin)
        return " ".join(f"{one}." for one in said) or f"Nothing is known of {self.name}."

    @property
    def _fate(self) -> str:
        sure = [f"{one.name} ({_probability(one.probability)})" for one in self.partners]
        if sure:
            sure[0] = (
                f"{self.partners[0].name} (probability {_probability(self.partners[0].probability)})"
            )
        match self.fate:
            case Fate.PERSISTS:
                return f"{self.name} persists as {sure[0]}{self._any}"
            case Fate.SPLITS:
                return f"{self.name} splits into {_listed(sure)}"
            case Fate.MERGES:
                others = _listed([one.name for one in self.merged])
                return f"{self.name} merges with {others} into {sure[0]}{self._any}"
            case Fate.DIES:
                return (
                    f"{self.name} dies: the probability that any feature of {self.following} is the same "
                    f"is {_probability(self.probability)}"
                )
            case Fate.NOT_LIVE:
                return f"{self.name} is not live, so it is not followed"
        why = "; ".join(self.notes) or "the run has not told it yet: saematch run goes on"
        return f"What becomes of {self.name} at {self.following} is not known ({why})"

    @property
    def _any(self) -> str:
        """Said where no single partner is probable, so that the fate rests on all of them."""
        first = self.partners[0].probability
        if first is None or first >= EVEN:
            return ""
        return (
            f", {_probability(self.probability)} that any feature of {self.following} is the same"
        )

    @property
    def _reached(self) -> str:
        """Where its path ends, if that is beyond the feature."""
        if not self.path or self.path[-1].key == self.key:
            return ""
        start, last = self.path[0], self.path[-1]
        sure = ""
        if last.start_probability is not None:
            sure = f" ({_probability(last.start_probability)} the same as {start.name})"
        if (start.key, start.feature) == (self.key, self.feature):
            return f"followed by its start, it is {last.name}{sure}"
        return f"the path of {start.name}, which passes through it, leads to {last.name}{sure}"

    @property
    def _origin(self) -> str:
        who = "It" if self.following is not None else self.name
        if self.origins:
            named = [f"{one.name} ({_probability(one.probability)})" for one in self.origins]
            return f"{who} comes from {_listed(named)}"
        if self.born:
            return f"{who} is born at {self.key}: no feature of {self.before} is the same"
        if self.born is False:
            return f"{who} is not born at {self.key}, but no feature of {self.before} counts it as a partner"
        return ""


def becomes(run: "Tables", key: str, feature: int) -> str:
    """What becomes of a feature, in words."""
    return Becomings(run).of(key, [feature])[feature].sentence


class Becomings:
    """What becomes of features of a run; tables are read once, when they are first needed."""

    def __init__(self, run: "Tables", way: str = FOLLOW_WAYS[0]) -> None:
        """`way`: of the paths."""
        self._run, self._way = run, way
        self._following = dict(run.adjacent)
        self._before = {b: a for a, b in run.adjacent}
        self._tables: dict[tuple[str, str], _Fates | None] = {}

    def of(self, key: str, features: Sequence[int], follow: bool = True) -> dict[int, Becoming]:
        """Of some features of one SAE; `follow`: with their paths.  Raises InputError where a table was
        altered."""
        following, before = self._following.get(key), self._before.get(key)
        after = None if following is None else self._fates(key, following)
        earlier = None if before is None else self._fates(before, key)
        paths = self._paths(key, features) if follow else {}
        found = {}
        for feature in features:
            parts: dict[str, Any] = {"path": paths.get(feature, ())}
            if after is not None:
                parts |= after.parts(feature)
            if earlier is not None:
                born = None if earlier.notes else feature in earlier.born
                parts |= {"origins": earlier.counted_by(feature), "born": born}
            found[feature] = Becoming(key, feature, following, before, **parts)
        return found

    def _fates(self, a: str, b: str) -> "_Fates | None":
        if (a, b) not in self._tables:
            name = fates_name(a, b)
            there = self._run.directory.is_current(name)
            self._tables[a, b] = _Fates(a, b, *self._run.directory.table(name)) if there else None
        return self._tables[a, b]

    def _paths(self, key: str, features: Sequence[int]) -> Mapping[int, tuple[Member, ...]]:
        if not self._run.directory.is_current(FOLLOWED_NAME):
            return {}
        data = pa.BufferReader(self._run.directory.read(FOLLOWED_NAME))
        way = ("way", "=", self._way)
        here = [way, ("key", "=", key), ("feature", "in", list(features))]
        columns = ["path", "feature", "cosine", "start_probability"]
        best: dict[int, tuple[bool, float, int]] = {}
        for row in pq.read_table(
            data, columns=columns, filters=here, use_threads=False
        ).to_pylist():
            agrees = -1.0 if row["start_probability"] is None else row["start_probability"]
            rank = row["cosine"] is None, agrees, row["path"]
            best[row["feature"]] = max(rank, best.get(row["feature"], rank))
        if not best:
            return {}
        chosen = {feature: path for feature, (_, _, path) in best.items()}
        members: dict[int, list[Member]] = defaultdict(list)
        there = [("path", "in", list(chosen.values()))]
        for row in pq.read_table(data, filters=there, use_threads=False).to_pylist():
            number = row.pop("path")
            del row["layer"], row["way"]
            members[number].append(Member(**row))
        return {feature: tuple(members[path]) for feature, path in chosen.items()}


FATES = (Fate.PERSISTS, Fate.SPLITS, Fate.MERGES, Fate.DIES)
"""What becomes of live features."""


@dataclass(frozen=True)
class FateShares:
    """What becomes of the features of two adjacent SAEs, as shares with 95% intervals over features."""

    a: str
    b: str
    live: int
    """Live features of a, which the fates are shares of."""
    live_b: int
    """Live features of b, which `born` is a share of."""
    counts: Mapping[str, int]
    """Features by each of `FATES`; empty: not known."""
    born_count: int | None
    """None: not known."""
    notes: tuple[str, ...] = ()
    """Why nothing is known."""

    @property
    def shares(self) -> dict[str, Interval]:
        """By each of `FATES`; empty: not known."""
        return {fate: share_interval(count, self.live) for fate, count in self.counts.items()}

    @property
    def born(self) -> Interval | None:
        return None if self.born_count is None else share_interval(self.born_count, self.live_b)


def fate_shares(run: "Tables") -> list[FateShares]:
    """Of every adjacent pair whose fates are told, in order of depth.  Raises InputError where a table was
    altered."""
    told = [pair for pair in run.adjacent if run.directory.is_current(fates_name(*pair))]
    return [_shares_of(run, a, b) for a, b in told]


def _shares_of(run: "Tables", a: str, b: str) -> FateShares:
    table, details = run.directory.table(fates_name(a, b))
    fates, notes = Counter(table["fate"].to_pylist()), tuple(details["notes"])
    counts = {} if notes else {str(fate): fates[fate] for fate in FATES}
    live_b = run.manifest["saes"][b]["features"].get("live", 0)
    born = None if notes else len(details["born"])
    return FateShares(a, b, len(table) - fates[Fate.NOT_LIVE], live_b, counts, born, notes)


class _Fates:
    """A table of fates by feature, and by partner."""

    def __init__(self, a: str, b: str, table: pa.Table, details: Mapping[str, Any]) -> None:
        self._a, self._b, self._table = a, b, table
        self.notes = tuple(details["notes"])
        self.born = frozenset(details["born"])

    def parts(self, feature: int) -> dict[str, Any]:
        """Fields of `Becoming` that are told of a feature of A."""
        row = self._table.slice(feature, 1).to_pylist()[0]
        candidates = tuple(
            Other(self._b, partner, probability)
            for partner, probability in zip(row["partners"], row["probabilities"], strict=True)
        )
        partners = candidates[: row["partner_count"]]
        merged = ()
        if row["fate"] == Fate.MERGES:
            into = self.counted_by(partners[0].feature)
            merged = tuple(one for one in into if one.feature != feature)
        return {
            "fate": row["fate"],
            "probability": row["probability"],
            "partners": partners,
            "candidates": candidates,
            "merged": merged,
            "notes": self.notes,
        }

    def counted_by(self, partner: int) -> tuple[Other, ...]:
        """Features of A that count a feature of B as a partner, the most probable first."""
        partners, features, probabilities = self._counting
        some = slice(*np.searchsorted(partners, (partner, partner + 1)))
        found = zip(features[some].tolist(), probabilities[some].tolist(), strict=True)
        return tuple(Other(self._a, feature, probability) for feature, probability in found)

    @cached_property
    def _counting(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Partner, feature and probability of pairs that count, by partner, the most probable first."""
        partners, probabilities = (
            self._table[name].combine_chunks() for name in ("partners", "probabilities")
        )
        lengths = partners.value_lengths().to_numpy()
        rank = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
        some = rank < np.repeat(self._table["partner_count"].to_numpy(), lengths)
        feature = np.repeat(self._table["feature"].to_numpy(), lengths)[some]
        partner, probability = (one.flatten().to_numpy()[some] for one in (partners, probabilities))
        order = np.lexsort((-probability, partner))
        return partner[order], feature[order], probability[order]


def _probability(value: float | None) -> str:
    """Two decimals, as .80; never 0 or 1, which no probability here is."""
    if value is None:
        return "not known"
    if not 0.005 <= value < 0.995:
        return "<.01" if value < 0.5 else ">.99"
    return f"{value:.2f}".removeprefix("0")


def _listed(names: Sequence[str]) -> str:
    """The first of them with commas and an "and"; of more than one over `NAMED` the rest is counted."""
    shown = list(names) if len(names) <= NAMED + 1 else list(names[:NAMED])
    if len(names) > len(shown):
        shown.append(f"{len(names) - len(shown)} more")
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))
