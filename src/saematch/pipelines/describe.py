"""`saematch describe`: what the features of a run mean, into the run directory.

Descriptions that ship with the SAEs are taken as they are; else one pass of the language model over the
corpora describes every SAE that has no description from the same texts yet.  Neuronpedia's are downloaded
where they are asked for.

What ships with an SAE is a folder `described` next to its weights.  It holds what `saematch describe`
leaves in a run directory, under names without the SAE's key, and each table says which SAE it is of;
tables of another SAE, or of other columns, are not taken.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

from saematch._io import files
from saematch._io.files import cache_directory
from saematch.configs import DescribeConfig
from saematch.errors import InputError
from saematch.evaluation.interventions import MASSIVE
from saematch.models import Documents, LanguageModel, load_corpus
from saematch.pipelines.evaluation.evaluated_run import HeldRun
from saematch.pipelines.suite import Member, forget_loaded
from saematch.semantics.descriptions.describing import (
    ACTIVATIONS,
    HALVES,
    DescribedFeatures,
    ReadTexts,
    describe_features,
    example_rows,
    feature_rows,
    half_source,
)
from saematch.semantics.neuronpedia.fetching import EXPORTS, fetch_descriptions
from saematch.semantics.neuronpedia.sources import source_of
from saematch.store.build import Progress, hash_of, silent
from saematch.store.directory import RunDirectory, sae_file
from saematch.store.names import descriptions_name, examples_name, features_name
from saematch.store.reader import Run, holding_run, open_run
from saematch.store.schema import DESCRIPTIONS, EXAMPLES, FEATURES, decode


def names_from_activations(key: str) -> tuple[str, ...]:
    """The files that describing an SAE from activations leaves."""
    sources = (ACTIVATIONS, *(half_source(ACTIVATIONS, half) for half in range(HALVES)))
    return (
        features_name(key),
        examples_name(key),
        *(descriptions_name(source, key) for source in sources),
    )


def describe(
    directory: str | Path,
    config: DescribeConfig,
    progress: Progress | None = None,
    model: LanguageModel | None = None,
) -> Run:
    """Describe the features of a run's SAEs; what an earlier call finished is kept.

    `model`: one that is loaded already; default: what the config or the SAEs name.

    Raises InputError for SAEs that changed since, a model that is not theirs, a corpus without text.
    """
    with holding_run(directory) as held:
        describing = _Describing(held, open_run(directory), config, progress or silent, model)
        if config.source == NEURONPEDIA:
            describe_from_neuronpedia(describing)
        else:
            describing.from_activations()
        forget_loaded()
    return open_run(directory)


def _ship(held: RunDirectory, member: Member) -> bool:
    """Copy what ships with an SAE into the run; whether there is anything."""
    found = shipped_descriptions(member)
    for name, data in found.items():
        inputs = hash_of(stage="shipped", sae=member.identity, name=name)
        if not held.is_finished(name, inputs):
            held.keep(name, data, inputs, [sae_file(held.path, member.key, member.sha256)])
    return bool(found)


class _Describing(HeldRun):
    """One pass for all SAEs that need it."""

    @cached_property
    def used(self) -> list[Member]:
        """The SAEs that nothing ships with, or all where the texts are asked for."""
        every = list(self.members.values())
        if self.config.source != "auto" or self.config.asks_for_texts:
            return every
        return [member for member in every if not _ship(self.held, member)]

    @property
    def layers(self) -> list[int]:
        """Of all SAEs, described or not: which of them are missing must not decide what is left out."""
        return sorted(sae["layer"] for sae in self.held.manifest["saes"].values())

    def from_activations(self) -> None:
        config = self.config
        if not self.used:
            return
        corpora = []
        for name in config.corpora:
            self.tell(f"reading {name}")
            corpora.append(load_corpus(name, config.documents, config.seed, config.offline or None))
            self.note(*corpora[-1].notes)
        base = {
            "model": self.model_identity,
            "texts": [corpus.sha256 for corpus in corpora],
            "documents": config.documents,
            "tokens": config.tokens,
            "examples": config.examples,
            "massive_tokens": MASSIVE,
            "layers": self.layers,
        }
        missing = {}
        for member in self.used:
            inputs = hash_of(stage="described", base=base, sae=member.identity)
            names = names_from_activations(member.key)
            if not all(self.held.is_finished(name, inputs) for name in names):
                missing[member.key] = inputs
        if not missing:
            return
        model = self.model
        texts = ReadTexts.of(
            [Documents.of(one, model, config.tokens, config.documents) for one in corpora]
        )
        count = len(texts.documents)
        described = describe_features(
            model,
            texts,
            {key: self.saes[key].sae for key in missing},
            config.examples,
            config.batch_tokens,
            self.layers,
            lambda done: self.tell(f"reading: {done} of {count} documents"),
        )
        for key, found in described.items():
            self.tell(f"describing the features of {key}")
            self._keep(key, missing[key], model, texts, found)

    def _keep(
        self,
        key: str,
        inputs: str,
        model: LanguageModel,
        texts: ReadTexts,
        found: DescribedFeatures,
    ) -> None:
        about: dict[str, Any] = {
            "corpora": list(dict.fromkeys(texts.corpus_of)),
            "origin": texts.documents.origin,
            "documents": len(texts.documents),
            "texts": texts.documents.texts,
            "tokens": found.statistics.tokens,
            "outlying": found.statistics.massive_tokens,
            "model": self.model_identity,
            "notes": self.notes,
            "sae": self.members[key].sha256,
        }
        member = self.members[key]
        made_from = [sae_file(self.held.path, key, member.sha256)]
        data = FEATURES.encode(feature_rows(model, found), about)
        self.held.keep(features_name(key), data, inputs, made_from)
        rows = example_rows(model, texts, found)
        self.held.keep(examples_name(key), EXAMPLES.encode(rows, about), inputs, made_from)
        made_from = [self.held.kept(examples_name(key))]
        for source, some in found.descriptions.items():
            data = DESCRIPTIONS.encode_records(map(vars, some), about)
            self.held.keep(descriptions_name(source, key), data, inputs, made_from)


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


NEURONPEDIA = "neuronpedia"
"""The source of these descriptions."""


def describe_from_neuronpedia(of: HeldRun) -> None:
    """Fetch what Neuronpedia says of every SAE; files that were downloaded before are not again.

    All ids are looked up before anything is downloaded.  Raises InputError for an SAE that it does not
    describe, unless `allow_other_sae`, and what `fetch_descriptions` raises.
    """
    held, config = of.held, of.config
    sources = {
        key: source_of(member.load(), allow_other_sae=config.allow_other_sae)
        for key, member in of.members.items()
    }
    for key, source in sources.items():
        of.tell(f"descriptions of {key} from Neuronpedia ({source.id})")
        member = of.members[key]
        found = fetch_descriptions(
            source,
            member.load().d_sae,
            cache_directory() / NEURONPEDIA,
            base_url=config.neuronpedia_url or EXPORTS,
            offline=config.offline,
        )
        about = {
            "neuronpedia": source.id,
            "describes": f"{source.repository}/{source.path}".strip("/"),
            "address": found.address,
            "explainers": dict(found.explainers),
            "batches": found.batches,
            "empty": found.empty,
            "malformed": found.malformed,
            "notes": [*source.notes, *found.notes],
            "sae": member.sha256,
        }
        data = DESCRIPTIONS.encode_records(map(vars, found.descriptions), about)
        inputs = hash_of(stage="neuronpedia", sae=member.identity, data=files.sha256(data))
        name = descriptions_name(NEURONPEDIA, key)
        if not held.is_finished(name, inputs):
            held.keep(name, data, inputs, [sae_file(held.path, key, member.sha256)])
