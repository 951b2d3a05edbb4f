"""A run's tables in long form, for other programs."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from saematch._io import files
from saematch.errors import UsageError
from saematch.matching.matched import Matching
from saematch.matching.matchers import compositions, matcher
from saematch.store.matchings import details_of, encode_correspondence, encode_matching
from saematch.store.names import matching_name
from saematch.store.reader import Run
from saematch.text import csv_cell, records, to_json

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("csv", "parquet", "json")


@files.os_errors_in_words("write tables")
def export(run: Run, format: str, destination: str | Path) -> tuple[Path, ...]:
    """Write `paths`, `matchings` and `measures` as csv, parquet or json into a folder.

    `matchings` holds every matching under the run's parts, with its pair and strategy in columns
    a, b, strategy, parts before those of the table.  Returns the files, which replace those of the
    same names.  Raises UsageError for another format.
    """
    if format not in FORMATS:
        raise UsageError(f"expected a format of {', '.join(FORMATS)}, got '{format}'")
    tables = {"paths": run.paths, "matchings": lambda: all_matchings(run), "measures": run.measures}
    written = []
    for name, read in tables.items():
        path = files.user_path(destination) / f"{name}.{format}"
        files.write_atomically(path, _encode(read(), format))
        written.append(path)
    return tuple(written)


def all_matchings(run: Run) -> "pd.DataFrame":
    """Every matching of the run's parts in one frame, in the order of the measures."""
    import pandas as pd

    frames = []
    for a, b in run.pairs:
        for strategy in (*run.config.strategies, *compositions().values()):
            if run.directory.is_current(matching_name(a, b, strategy, run.config.slug)):
                frame = run.matching_table(a, b, strategy)
                whose = {"a": a, "b": b, "strategy": strategy, "parts": run.config.slug}
                frames.append(frame.assign(**whose)[[*whose, *frame.columns]])
    return pd.concat(frames, ignore_index=True)


def _encode(frame: "pd.DataFrame", format: str) -> bytes:
    if format == "csv":
        return _without_formulas(frame).to_csv(index=False).encode()
    if format == "json":
        return to_json(records(frame)).encode()
    import io

    sink = io.BytesIO()
    keywords: dict[str, Any] = {"index": False, "compression": "zstd"}
    frame.to_parquet(sink, **keywords)
    return sink.getvalue()


def _without_formulas(frame: "pd.DataFrame") -> "pd.DataFrame":
    from pandas.api.types import is_numeric_dtype

    def harmless(value: Any) -> Any:
        return csv_cell(value) if isinstance(value, str) else value

    texts = [name for name in frame if not is_numeric_dtype(frame[name])]
    return frame.assign(**{str(name): frame[name].map(harmless) for name in texts})


def write_matching(matching: Matching, path: str | Path) -> None:
    """Write one matching as Parquet, in the columns and details that a run directory has: one row per
    feature, or, where features may have several partners, one per pair."""
    if matcher(matching.strategy).several:
        data = encode_correspondence(matching, details_of(matching))
    else:
        data = encode_matching(matching)
    files.write_atomically(files.user_path(path), data)
