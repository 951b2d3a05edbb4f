"""A run of layers 3, 4 and 5 whose fates and followed paths are chosen here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saematch.store import schema
from saematch.store.directory import RunDirectory
from saematch.store.names import FOLLOWED_NAME, fates_name

CHOSEN = {
    0: ("not live", None, [], [], 0),
    1: ("splits", 0.9, [7, 9, 2], [0.8, 0.6, 0.4], 2),
    2: ("merges", 0.7, [5, 1], [0.65, 0.1], 1),
    3: ("merges", 0.95, [5], [0.999], 1),
    4: ("dies", 0.2, [8], [0.001], 0),
    5: ("persists", 0.53, [3], [0.31], 1),
    6: ("splits", 0.9, [10, 11, 12, 13, 14], [0.9, 0.9, 0.8, 0.7, 0.6], 5),
    7: ("persists", 0.9, [4], [0.9], 1),
}
"""Fate, probability of any, partners, theirs, and how many count; other features persist as themselves."""


def chosen(of: Mapping[int, tuple[Any, ...]], width: int = 16) -> dict[str, list[Any]]:
    rows = [of.get(feature, ("persists", 0.9, [15], [0.9], 1)) for feature in range(width)]
    columns = zip(*rows, strict=True)
    names = ("fate", "probability", "partners", "probabilities", "partner_count")
    found = dict(zip(names, map(list, columns), strict=True))
    return {"feature": list(range(width)), **found}


def path(number: int, *members: tuple[str, int, float | None, float | None]) -> list[dict]:
    return [
        {
            "path": number,
            "layer": int(key),
            "key": key,
            "feature": feature,
            "status": "live",
            "cosine": None if place == 0 else 0.5,
            "probability": step,
            "start_probability": start,
        }
        for place, (key, feature, step, start) in enumerate(members)
    ]


def write(directory: Path, name: str, data: bytes) -> None:
    with RunDirectory(directory).holding() as held:
        record = held.record(name)
        assert record is not None
        held.keep(name, data, record.inputs)


def write_fates(
    directory: Path,
    pair: tuple[str, str],
    of: Mapping[int, tuple[Any, ...]],
    born: Sequence[int] = (),
    notes: Sequence[str] = (),
) -> None:
    details = {"a": pair[0], "b": pair[1], "notes": list(notes), "born": list(born)}
    write(directory, fates_name(*pair), schema.FATES.encode(chosen(of), details))


def tell(directory: Path) -> None:
    """Of 3 to 4 the fates chosen above, of 4 to 5 none, and four consensus paths."""
    write_fates(directory, ("3", "4"), CHOSEN, born=[0])
    unknown = {feature: ("unknown", None, [], [], 0) for feature in range(16)}
    write_fates(directory, ("4", "5"), unknown, notes=["no probabilities: they are unlike others"])
    rows = [
        *path(0, ("3", 1, None, None), ("4", 7, 0.8, 0.8), ("5", 19, 0.7, 0.31)),
        *path(1, ("3", 2, None, None), ("4", 5, 0.65, 0.65), ("5", 2, None, None)),
        *path(2, ("3", 3, None, None), ("4", 5, 0.9, 0.9), ("5", 3, 0.9, 0.9)),
        *path(3, ("4", 9, None, None), ("5", 3, 0.9, 0.95)),
    ]
    rows = [{"way": "consensus", **row} for row in rows]
    write(directory, FOLLOWED_NAME, schema.FOLLOWED.encode_records(rows, {"notes": []}))
