"""Ways in which a file of a run directory comes to be wrong."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from saematch._io import files
from saematch.store.manifest import decode_manifest, encode_manifest
from saematch.store.schema import DESCRIPTIONS, EXAMPLES, FEATURES, decode

HOSTILE = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"


def wrong_bytes(path: Path) -> None:
    """Of the right size: a bit of the disk turned."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut_short(path: Path) -> None:
    """The disk was full."""
    path.write_bytes(path.read_bytes()[:-9])


def gone(path: Path) -> None:
    path.unlink()


def rewrite(run: Path, name: str, data: bytes) -> None:
    """Put bytes in a file of a run and into its manifest, as a stranger could."""
    path = run / "manifest.json"
    content = decode_manifest(path.read_bytes(), path)
    (run / name).write_bytes(data)
    content["outputs"][name] = {
        "inputs": "0",
        "depends": {},
        "sha256": files.sha256(data),
        "bytes": len(data),
        "packages": "synthetic",
    }
    path.write_bytes(encode_manifest(content))


def pq_bytes(frame: pd.DataFrame) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), sink, compression="gzip")
    return sink.getvalue().to_pybytes()


NO_SUCH_TABLES = (
    b"",
    b"PAR1PAR1",
    b"not a table",
    pq_bytes(pd.DataFrame({"other": [1]})),
    pq_bytes(pd.DataFrame({"feature": ["a"], "tokens": [1], "text": [2.5]})),
)


def hostile(run: Path) -> None:
    """Texts that would run where they were not escaped: descriptions, tokens, examples."""
    for name, table, columns in (
        ("descriptions/activations--1.parquet", DESCRIPTIONS, ("text",)),
        ("features/1.parquet", FEATURES, ("activates_on", "amid", "top_logits")),
        ("examples/1.parquet", EXAMPLES, ("tokens",)),
    ):
        rows, about = decode((run / name).read_bytes())
        values = rows.to_pydict()
        for column in columns:
            values[column] = [
                HOSTILE if isinstance(one, str) else [HOSTILE for _ in one]
                for one in values[column]
            ]
        if column == "text":
            values["source"] = ["model"] * len(values["source"])
        rewrite(run, name.replace("activations", "model"), table.encode(values, about))
