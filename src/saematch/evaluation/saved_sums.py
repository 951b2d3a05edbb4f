"""Sums of documents as columns and as bytes, so that a pass that was cut off goes on where it was."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from saematch.evaluation.collecting import Collected, Condition, Pair, Row

RAGGED = ("features", "counts")
"""Columns whose rows have a length each."""


def to_bytes(found: Collected) -> bytes:
    """An .npz file of the sums; conditions are told apart by their place."""
    arrays: dict[str, np.ndarray] = {}
    for name, rows in _units(found).items():
        arrays |= {f"{name}|{column}": values for column, values in _flat(rows).items()}
    data = io.BytesIO()
    np.savez_compressed(data, allow_pickle=False, **arrays)
    return data.getvalue()


def from_bytes(data: bytes, conditions: Mapping[Pair, Sequence[Condition]]) -> Collected | None:
    """The sums of the same conditions, or None where the bytes are not whole."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as kept:
            units: dict[str, dict[str, np.ndarray]] = {}
            for name in kept.files:
                unit, column = name.split("|")
                units.setdefault(unit, {})[column] = kept[name]
        return Collected(
            _rows(units["documents"]),
            {n[6:]: _rows(v) for n, v in units.items() if n.startswith("layer/")},
            {
                pair: [
                    (condition, _rows(units[f"condition/{number}/{place}"]))
                    for place, condition in enumerate(some)
                ]
                for number, (pair, some) in enumerate(conditions.items())
            },
        )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _units(found: Collected) -> dict[str, list[Row]]:
    return {
        "documents": found.documents,
        **{f"layer/{key}": rows for key, rows in found.layers.items()},
        **{
            f"condition/{number}/{place}": rows
            for number, conditions in enumerate(found.conditions.values())
            for place, (_, rows) in enumerate(conditions)
        },
    }


def _flat(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    columns: dict[str, np.ndarray] = {}
    for column in rows[0]:
        values = [row[column] for row in rows]
        if column in RAGGED:
            columns[f"{column}.lengths"] = np.array([len(one) for one in values])
            columns[column] = np.concatenate(values)
        else:
            columns[column] = np.stack(values)
    return columns


def _rows(columns: Mapping[str, np.ndarray]) -> list[Row]:
    count = len(columns["document"])
    whole: dict[str, Any] = {}
    for column, values in columns.items():
        if column in RAGGED:
            whole[column] = np.split(values, np.cumsum(columns[f"{column}.lengths"])[:-1])
        elif not column.endswith(".lengths"):
            whole[column] = values
    return [{column: values[n] for column, values in whole.items()} for n in range(count)]
