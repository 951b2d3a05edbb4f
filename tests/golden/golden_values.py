"""What the golden files hold, as plain JSON, and how it is compared.

Integers, truth values and texts must be equal; floating-point numbers nearly so (`RELATIVE`), because
another processor adds in another order.  No bytes are compared: those depend on versions of libraries.
"""

import hashlib
import html
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, zip_longest
from pathlib import Path
from statistics import median
from typing import Any
from xml.etree import ElementTree

import pyarrow.parquet as pq
import torch

PROCESSOR_FILE = Path(__file__).parent / "processor.txt"


def processor() -> str:
    """What decides in which order and with which instructions torch adds."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "")
    return f"{model} {torch.backends.cpu.get_cpu_capability()}"


SAME_PROCESSOR = PROCESSOR_FILE.exists() and PROCESSOR_FILE.read_text().strip() == processor()
RELATIVE = 1e-9 if SAME_PROCESSOR else 1e-4
"""What numbers may differ by.  On another processor the language model's, in float32, differ by some 1e-6
of the greatest, so that there the net has wider meshes."""
OF_MEDIAN = 1e-12 if SAME_PROCESSOR else 1e-4
"""Of the median size of a column's numbers: what is left of a difference of two that nearly cancel.  Not of
the greatest: one degenerate feature's cost can be 10⁸ times the others'."""
LONG = 24
"""Characters of a text from which on its digest stands for it."""
SHOWN = 5
"""Differences that a message shows."""
UNREPEATABLE = {"seconds", "time"}
"""What says when and how long."""
DETAILS = b"saematch"
"""Key of the Parquet metadata under which tables keep what is not per row."""


def table(path: Path) -> dict[str, Any]:
    """A Parquet file: rows, keys of its details, and of each column its type and values."""
    read = pq.ParquetFile(path).read()
    details = json.loads((read.schema.metadata or {}).get(DETAILS, b"{}"))
    columns = {
        name: {
            "type": str(read.schema.field(name).type)
            + ("?" if read.schema.field(name).nullable else ""),
            "values": _runs([_plain(value) for value in read.column(name).to_pylist()]),
        }
        for name in read.column_names
        if name not in UNREPEATABLE
    }
    return {"rows": read.num_rows, "details": sorted(details), "columns": columns}


def _plain(value: Any) -> Any:
    """A cell as JSON has it; of what is long a digest."""
    if isinstance(value, float):
        return rounded(value)
    if isinstance(value, str) and len(value) > LONG:
        return f"{value[:8]}… {_digest(value)}"
    if isinstance(value, list):
        if value and isinstance(value[0], float):
            # The weights tell one order from another.
            return [len(value), rounded(math.fsum(n * one for n, one in enumerate(value, 1)))]
        return f"{len(value)} items {_digest(json.dumps(value))}"
    return value


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def rounded(value: float) -> float | str:
    """Three digits more than are compared."""
    return float(f"{value:.12g}") if math.isfinite(value) else str(value)


def _runs(values: list[Any]) -> list[Any]:
    """Equal values that follow each other as {"times": n, "value": v}, where they are many."""
    runs: list[Any] = []
    for _, group in groupby(values, key=json.dumps):
        same = list(group)
        runs += [{"times": len(same), "value": same[0]}] if len(same) > 2 else same
    return runs


def _unrolled(runs: Iterable[Any]) -> list[Any]:
    return [
        value
        for one in runs
        for value in ([one["value"]] * one["times"] if isinstance(one, Mapping) else [one])
    ]


def table_differences(name: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two of `table`, the table and column named."""
    found = [
        f"{name}: {what} was {was[what]}, is {now[what]}"
        for what in ("rows", "details")
        if was[what] != now[what]
    ]
    if list(was["columns"]) != list(now["columns"]):
        found.append(f"{name}: columns were {list(was['columns'])}, are {list(now['columns'])}")
    for column in was["columns"].keys() & now["columns"].keys():
        before, after = was["columns"][column], now["columns"][column]
        if before["type"] != after["type"]:
            found.append(f"{name}: column {column} was {before['type']}, is {after['type']}")
        old, new = _unrolled(before["values"]), _unrolled(after["values"])
        numbers = [abs(one) for one in old if isinstance(one, float)]
        slack = OF_MEDIAN * (median(numbers) if numbers else 0.0)
        differing = [
            f"row {row}: was {a!r}, is {b!r}"
            for row, (a, b) in enumerate(zip(old, new))
            if not near(a, b, slack)
        ]
        if differing:
            shown = "; ".join(differing[:SHOWN])
            found.append(f"{name}: column {column}: {len(differing)} of {len(old)} differ: {shown}")
    return found


def near(was: Any, now: Any, slack: float = 0.0) -> bool:
    """Whether two values are the same, floating-point numbers up to rounding."""
    if isinstance(was, float) and isinstance(now, float):
        return abs(was - now) <= RELATIVE * max(abs(was), abs(now)) + slack
    if isinstance(was, list) and isinstance(now, list):
        return len(was) == len(now) and all(near(a, b, slack) for a, b in zip(was, now))
    return type(was) is type(now) and was == now


def tree(value: Any) -> Any:
    """A value that a verb printed, its numbers rounded, without how long things took."""
    if isinstance(value, float):
        return rounded(value)
    if isinstance(value, dict):
        return {key: tree(one) for key, one in value.items() if key not in UNREPEATABLE}
    return [tree(one) for one in value] if isinstance(value, list) else value


def tree_differences(where: str, was: Any, now: Any, slack: float = RELATIVE) -> list[str]:
    """What differs between two trees, the way to it named."""
    if isinstance(was, dict) and isinstance(now, dict):
        found = (
            [f"{where}: keys were {list(was)}, are {list(now)}"] if list(was) != list(now) else []
        )
        for key in was.keys() & now.keys():
            found += tree_differences(f"{where}.{key}", was[key], now[key], slack)
        return found
    if isinstance(was, list) and isinstance(now, list):
        found = [f"{where}: had {len(was)} items, has {len(now)}"] if len(was) != len(now) else []
        for n, (a, b) in enumerate(zip(was, now)):
            found += tree_differences(f"{where}[{n}]", a, b, slack)
        return found
    return [] if near(was, now, slack) else [f"{where}: was {was!r}, is {now!r}"]


def shape(value: Any) -> Any:
    """Keys and kinds of a value without the values; items of a list stand for each other."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    if isinstance(value, list):
        shapes = {json.dumps(shape(one)): shape(one) for one in value}
        return [shapes[one] for one in sorted(shapes)]
    kinds = {type(None): "null", bool: "boolean", int: "number", float: "number", str: "text"}
    return kinds[type(value)]


_NUMBER = re.compile(r"(\d+\.\d+(?:e[+-]?\d+)?)")


def line_differences(where: str, was: Sequence[str], now: Sequence[str]) -> list[str]:
    """What differs between the lines of two texts; a decimal may differ by one in its last digit."""
    return [
        f"{where}, line {n}: was {a!r}, is {b!r}"
        for n, (a, b) in enumerate(zip_longest(was, now), start=1)
        if a is None or b is None or not _same_line(a, b)
    ]


def _same_line(was: str, now: str) -> bool:
    old, new = _NUMBER.split(was), _NUMBER.split(now)
    return len(old) == len(new) and all(
        a == b or (n % 2 == 1 and _one_digit(a, b)) for n, (a, b) in enumerate(zip(old, new))
    )


def _one_digit(was: str, now: str) -> bool:
    mantissa, _, exponent = was.partition("e")
    unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return abs(float(was) - float(now)) <= 1.001 * unit


_VERSIONS = re.compile(r"\b(saematch|python|torch|numpy|pyarrow|lapjv|scipy) \d[\w.+]*")


def report_text(page: str) -> list[str]:
    """What a reader of a report sees, a line per piece of text; pictures, scripts and versions left out."""
    page = re.sub(r"<(script|style|svg)\b.*?</\1>", " ", page, flags=re.DOTALL)
    pieces = html.unescape(re.sub(r"<[^>]+>", "\n", page)).splitlines()
    return [_VERSIONS.sub(r"\1 VERSION", " ".join(one.split())) for one in pieces if one.strip()]


def drawing(path: Path) -> dict[str, int]:
    """How many elements of each kind an SVG has."""
    elements = ElementTree.parse(path).iter()
    return dict(sorted(Counter(one.tag.rpartition("}")[2] for one in elements).items()))


def as_text(value: Any, depth: int) -> str:
    """JSON, readable: an entry of the `depth` outer levels a line each."""

    def write(one: Any, level: int) -> str:
        if level == depth or not isinstance(one, dict) or not one:
            return json.dumps(one, ensure_ascii=False)
        inner = " " * (level + 1)
        entries = (
            f"{inner}{json.dumps(key)}: {write(item, level + 1)}" for key, item in one.items()
        )
        return "{\n" + ",\n".join(entries) + "\n" + " " * level + "}"

    return write(value, 0) + "\n"


def partners_digest(permutation: Iterable[int]) -> str:
    """The digest of a map of features, whatever integer type it is kept in."""
    return _digest(",".join(str(int(one)) for one in permutation))
