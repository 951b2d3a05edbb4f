"""Neuronpedia's descriptions of a run's SAEs, into the run directory."""

from collections.abc import Callable, Mapping
from typing import Any

from saematch._io import files
from saematch._io.cache import cache_directory
from saematch.configs.describing import DescribeConfig
from saematch.pipelines.suite import Member
from saematch.semantics.neuronpedia.fetching import (
    EXPORTS,
    FetchedDescriptions,
    fetch_descriptions,
    source_of,
)
from saematch.store.build import hash_of
from saematch.store.directory import RunDirectory, sae_file
from saematch.store.names import descriptions_name
from saematch.store.schema_semantics import DESCRIPTIONS

NEURONPEDIA = "neuronpedia"
"""The source of these descriptions."""


def describe_from_neuronpedia(
    held: RunDirectory,
    members: Mapping[str, Member],
    config: DescribeConfig,
    tell: Callable[[str], None],
) -> None:
    """Fetch what Neuronpedia says of every SAE; files that were downloaded before are not again.

    All ids are looked up before anything is downloaded.  Raises InputError for an SAE that it does not
    describe, unless `allow_other_sae`, and what `fetch_descriptions` raises.
    """
    sources = {
        key: source_of(member.load(), allow_other_sae=config.allow_other_sae)
        for key, member in members.items()
    }
    for key, source in sources.items():
        tell(f"descriptions of {key} from Neuronpedia ({source.id})")
        found = fetch_descriptions(
            source,
            members[key].load().d_sae,
            cache_directory() / NEURONPEDIA,
            base_url=config.neuronpedia_url or EXPORTS,
            offline=config.offline,
        )
        _keep(held, members[key], found)


def _keep(held: RunDirectory, member: Member, found: FetchedDescriptions) -> None:
    columns = {
        name: [getattr(one, name) for one in found.descriptions] for name in DESCRIPTIONS.names
    }
    about: dict[str, Any] = {
        "neuronpedia": found.source.id,
        "describes": f"{found.source.repository}/{found.source.path}".strip("/"),
        "address": found.address,
        "explainers": dict(found.explainers),
        "batches": found.batches,
        "empty": found.empty,
        "malformed": found.malformed,
        "notes": [*found.source.notes, *found.notes],
        "sae": member.sha256,
    }
    data = DESCRIPTIONS.encode(columns, about)
    inputs = hash_of(stage="neuronpedia", sae=member.identity, data=files.sha256(data))
    name = descriptions_name(NEURONPEDIA, member.key)
    if not held.is_finished(name, inputs):
        held.keep(name, data, inputs, [sae_file(held.path, member.key, member.sha256)])
