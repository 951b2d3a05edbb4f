"""Descriptions that ship with an SAE: a folder `described` beside its weights.

It holds what `saematch describe` leaves in a run directory, under names without the SAE's key, and each
table says which SAE it is of; tables of another SAE, or of other columns, are not taken.
"""

from pathlib import Path

from saematch.errors import InputError
from saematch.pipelines.suite import Member
from saematch.store.schema import decode
from saematch.store.schema_semantics import CONTEXTS, DESCRIPTIONS, FEATURES

FOLDER = "described"
_TABLES = {"features": FEATURES, "contexts": CONTEXTS, "descriptions": DESCRIPTIONS}


def shipped_name(name: str, key: str) -> str:
    """What a file of a run directory is called in the folder: `descriptions-activations.parquet`."""
    kind, _, rest = name.partition("/")
    source = rest.removesuffix(f"{key}.parquet").removesuffix("--")
    return f"{kind}-{source}.parquet" if source else f"{kind}.parquet"


def shipped_descriptions(member: Member) -> dict[str, bytes]:
    """Files that ship with an SAE, by their names in a run directory; empty where there are none.

    Raises InputError for a table that cannot be read.
    """
    from saematch.loading import source_files

    folder = Path(source_files(member.entry.reference)[0]).parent / FOLDER
    found = {}
    for path in sorted(folder.glob("*.parquet")):
        kind, _, source = path.stem.partition("-")
        if kind not in _TABLES:
            continue
        data = path.read_bytes()
        try:
            table, about = decode(data)
        except (ValueError, OSError) as error:
            raise InputError(f"needed a table of descriptions in {path}, found: {error}") from None
        if table.schema == _TABLES[kind].schema and about.get("sae") == member.sha256:
            name = f"{source}--{member.key}" if source else member.key
            found[f"{kind}/{name}.parquet"] = data
    return found
