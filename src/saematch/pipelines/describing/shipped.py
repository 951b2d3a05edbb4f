"""Descriptions that ship with an SAE: a folder `described` next to its weights.

It holds what `saematch describe` leaves in a run directory, under names without the SAE's key, and each
table says which SAE it is of; tables of another SAE, or of other columns, are not taken.
"""

from pathlib import Path

from saematch.errors import InputError
from saematch.pipelines.suite import Member
from saematch.store.schema import decode
from saematch.store.schema_semantics import DESCRIPTIONS, EXAMPLES, FEATURES

FOLDER = "described"
_TABLES = {"features": FEATURES, "examples": EXAMPLES, "descriptions": DESCRIPTIONS}
_RENAMED = {
    "contexts": "examples",
    "firings": "activation_count",
    "density": "activation_frequency",
    "fires_on": "activates_on",
    "fires_on_share": "activates_on_share",
    "promotes": "top_logits",
}
"""Names of tables and columns in folders that saematch 0.1 made, the bundled suite's among them."""


def shipped_name(name: str, key: str) -> str:
    """What a file of a run directory is called in the folder: `descriptions-activations.parquet`."""
    kind, _, rest = name.partition("/")
    source = rest.removesuffix(f"{key}.parquet").removesuffix("--")
    return f"{kind}-{source}.parquet" if source else f"{kind}.parquet"


def shipped_descriptions(member: Member) -> dict[str, bytes]:
    """Files that ship with an SAE, by their names in a run directory; empty if there are none.

    Raises InputError for a table that cannot be read.
    """
    from saematch.loading import source_files

    folder = Path(source_files(member.entry.reference)[0]).parent / FOLDER
    found = {}
    for path in sorted(folder.glob("*.parquet")):
        kind, _, source = path.stem.partition("-")
        kind = _RENAMED.get(kind, kind)
        if kind not in _TABLES:
            continue
        data = path.read_bytes()
        try:
            table, about = decode(data)
        except (ValueError, OSError) as error:
            raise InputError(f"the descriptions in {path} cannot be read: {error}") from None
        named = table.rename_columns([_RENAMED.get(one, one) for one in table.column_names])
        if named.schema == _TABLES[kind].schema and about.get("sae") == member.sha256:
            name = f"{source}--{member.key}" if source else member.key
            if named.schema != table.schema:
                data = _TABLES[kind].encode(named.to_pydict(), about)
            found[f"{kind}/{name}.parquet"] = data
    return found
