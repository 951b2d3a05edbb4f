"""The model card in Markdown, from measurements.json: every number in it was measured."""

from collections.abc import Iterable, Sequence
from typing import Any

from settings import Settings

QUANTILES = "0.1 / 0.25 / 0.5 / 0.75 / 0.9"

HEAD = """# The bundled suite

JumpReLU SAEs with a threshold per feature on the residual stream of {model}, after blocks {blocks};
d_model {d_model}, d_sae {d_sae}. Trained by [recipes/smollm2](../recipes/smollm2/README.md) with
SAELens's own trainer; matrices in bfloat16, vectors in float32, in SAELens's folder format, so that
`SAE.load_from_disk` opens them. In saematch: `bundled:smollm2-135m`, `bundled:smollm2-135m/12`.

This page is written by the recipe; all figures are from the weights as shipped.

- **Language model**: 4-bit weights, dequantised to float32 at load (sha256 of the GGUF file
  `{sha}`). The Hub's bfloat16 weights of the same model differ slightly.
- **Seeds**: every SAE has its own seed and data order, and its features are randomly relabelled at
  export. With a shared initialisation the identity is nearly the answer, and a program that returned
  it would look good.
- **Units**: the encoder reads the raw residual stream, decoder rows have unit norm, thresholds carry
  the stream's scale (the convention of Gemma Scope).
- **Corpus**: {train_tokens:,} unique tokens of {train_documents:,} documents, seen {passes} times
  ({samples:,} samples; {harder_samples:,} at blocks {harder}), context {context}.
  Groups: {groups}.
  It is not redistributed (some of it is GPL or third-party mail and web pages); the recipe trains
  from any JSONL or Hub dataset.
- **Held out**: {held_tokens:,} tokens of {held_documents} other documents of the same mixture.
- **Left out** of training and of every figure here: BOS, and tokens whose residual norm exceeds
  {outlier:g} times the median (some have over 100 times).
- **dead**: never active on the held-out tokens; **degenerate**: threshold at most 0.05 of the median.
"""


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def cosines(values: Sequence[float] | None) -> str:
    return "–" if values is None else " / ".join(f"{value:.2f}" for value in values)


def share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}"


def quality_rows(records: dict[str, Any], settings: Settings) -> list[list[Any]]:
    rows = []
    for name, record in records.items():
        held, status = record["held_out"], record["status"]
        training = record["training"]
        rows.append(
            [
                name,
                f"{held['l0']:.1f}",
                f"{held['explained_variance']:.3f}",
                share(status["dead"] + never(record, settings), settings.d_sae),
                share(status["degenerate"], settings.d_sae),
                held["left_out"],
                training["outliers_left_out"],
                f"{training['steps'] * settings.batch / 1e6:.1f}",
                f"{training['target_l0']:g}",
                f"{training['seconds'] / 60:.1f}",
            ]
        )
    return rows


def never(record: dict[str, Any], settings: Settings) -> int:
    """Degenerate features that were never active either: `dead` counts both kinds."""
    return record["never_fired"] - record["status"]["dead"]


def corpora_rows(records: dict[str, Any], corpora: Sequence[str]) -> list[list[Any]]:
    return [
        [
            name,
            *(f"{record['corpora'][c]['explained_variance']:.3f}" for c in corpora),
            *(f"{record['corpora'][c]['l0']:.1f}" for c in corpora),
        ]
        for name, record in records.items()
    ]


def cosine_rows(records: dict[str, Any]) -> list[list[Any]]:
    kinds = ("next_layer", "second_seed", "untrained")
    return [
        [name, *(cosines(record["best_cosine"].get(kind)) for kind in kinds)]
        for name, record in records.items()
        if record.get("best_cosine")
    ]


def card(settings: Settings, measured: dict[str, Any]) -> str:
    """The whole page."""
    records, collected = measured["saes"], measured["collected"]
    blocks = settings.blocks
    text = HEAD.format(
        model=measured["model_name"],
        blocks=f"{blocks[0]} to {blocks[-1]}",
        d_model=measured["d_model"],
        d_sae=settings.d_sae,
        sha=measured["model_weights_sha256"],
        train_tokens=collected["train"]["tokens"],
        train_documents=collected["train"]["documents"],
        held_tokens=collected["held_out"]["tokens"],
        held_documents=collected["held_out"]["documents"],
        passes=f"{settings.training_samples / collected['train']['tokens']:.1f}",
        samples=settings.training_samples,
        harder_samples=settings.harder_training_samples,
        harder=" and ".join(str(block) for block in settings.harder_blocks),
        context=settings.context,
        groups=", ".join(f"{name} {weight:.0%}" for name, weight in settings.group_weights),
        outlier=settings.outlier_ratio,
    )
    head = (
        "SAE",
        "mean L0",
        "explained variance",
        "dead",
        "degenerate",
        "held-out tokens left out",
        "training tokens left out",
        "million training samples",
        "target L0",
        "minutes to train",
    )
    text += "\n## On held-out tokens of the mixture\n\n" + table(
        head, quality_rows(records, settings)
    )
    text += (
        "\nNumbers name blocks; `12-second-seed` is another seed of block 12 (the ceiling of what\n"
        "matching can reach), `12-untrained` an SAE as initialised (the floor). Those two and the\n"
        "blocks outside the suite are not shipped; the recipe makes them.\n"
    )
    corpora = sorted(next(iter(records.values())).get("corpora", {}))
    if corpora:
        counts = {c: records[str(blocks[0])]["corpora"][c]["tokens"] for c in corpora}
        words = ", ".join(f"{c} {count:,} tokens" for c, count in counts.items())
        text += (
            f"\n## On three other corpora\n\n{settings.evaluation_documents} documents each "
            f"({words} at block {blocks[0]}).\n\n"
        )
        text += table(
            ("SAE", *(f"EV {c}" for c in corpora), *(f"L0 {c}" for c in corpora)),
            corpora_rows(records, corpora),
        )
    text += (
        "\n## Nearest decoder rows\n\n"
        "Greatest cosine of each live feature's decoder row to any row of the other SAE, at\n"
        f"quantiles {QUANTILES}.\n\n"
    )
    text += table(
        ("SAE", "to the next block", "to a second seed", "to an untrained SAE"),
        cosine_rows(records),
    )
    return text + f"\n## How long it took\n\n{measured['machine']}\n"
