"""The verbs that run a language model on SAEs: evaluate, findings."""

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from saematch.cli.options import Directory, print_json, verb
from saematch.configs import CalibrationConfig, EvaluationConfig
from saematch.settings import setting
from saematch.text import records

if TYPE_CHECKING:
    from saematch.cli.display.terminal import Spinner


@verb
def evaluate(directory: Directory, config: EvaluationConfig, as_json: bool = False) -> None:
    """Measure a run's matchings on its language model.

    Explained variance, loss, and how often matched features activate together.
    """
    from saematch.cli.display.evaluation import evaluation_summary
    from saematch.pipelines.evaluation.evaluate import evaluate as evaluate_run
    from saematch.pipelines.evaluation.summary import corpora_of

    with adding_to(directory, quiet=as_json) as tell:
        run = evaluate_run(directory, config, tell)
    if as_json:
        measures = run.measures()
        measures = measures[measures["corpus"] != ""]
        print_json({"corpora": corpora_of(run), "measures": records(measures)})
    else:
        evaluation_summary(run)


@verb
def calibrate(directory: Directory, config: CalibrationConfig, as_json: bool = False) -> None:
    """Fit the probabilities of a run to its SAEs.

    Reads text with the language model, learns from the weights which features are active together, and judges
    that on layers that it did not see.
    """
    from saematch.cli.display.evaluation import calibration_summary
    from saematch.pipelines.calibrate import calibrate as calibrate_run

    with adding_to(directory, quiet=as_json) as tell:
        run = calibrate_run(directory, config, tell)
    about = run.calibration.about
    if as_json:
        print_json(about)
    else:
        calibration_summary(about, directory)


def demo(directory: Path, as_json: bool) -> None:
    """A small evaluation of the demo's run."""
    from saematch.cli.display.evaluation import evaluation_summary
    from saematch.matching.matchers import usual_for_judges
    from saematch.pipelines.evaluation.evaluate import evaluate as evaluate_run

    config = EvaluationConfig(
        model="smollm2",
        corpora=("web",),
        documents=6,
        tokens=128,
        strategies=usual_for_judges(),
        pairs=(("12", "13"), ("13", "14")),
        causal_pairs=8,
        other_parts=False,
        offline=True,
    )
    with adding_to(directory, quiet=as_json) as tell:
        run = evaluate_run(directory, config, tell)
    if not as_json:
        evaluation_summary(run)


@contextmanager
def adding_to(directory: Path, quiet: bool) -> Iterator["Spinner | None"]:
    """A spinner while something is added to a run, its report last."""
    from saematch.cli.display import terminal as display
    from saematch.rendering import write_report

    quiet_libraries()
    with display.steps(quiet) as tell:
        yield tell
        if tell is not None:
            tell(0, 1, "the report")
        write_report(directory)


def quiet_libraries() -> None:
    """transformers and tokenizers report their own progress on stderr; ours is enough."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    with suppress(ImportError):  # loading the model says what is missing
        from transformers.utils import logging

        logging.disable_progress_bar()


@verb
def benchmark(
    directory: Directory,
    pairs: str | None = setting(
        None, "Layer pairs, e.g. 12,13 or 12,13;13,14.", unset="all that were evaluated"
    ),
    as_json: bool = False,
) -> None:
    """Compare the matchers of an evaluated run in one table.

    Written to its leaderboard.parquet, with the differences from folded.
    """
    from saematch.cli.display import terminal as display
    from saematch.cli.display.evaluation import leaderboard_shown
    from saematch.configs import parse_pairs
    from saematch.pipelines.benchmark import benchmark as stand

    with display.steps(as_json, "reading what was evaluated") as tell:
        board = stand(directory, None if pairs is None else parse_pairs(pairs), tell)
    if as_json:
        print_json({"about": board.about, "seconds": board.seconds, "rows": records(board.rows)})
    else:
        leaderboard_shown(board, directory)


@verb
def findings(
    directory: Directory,
    early: Path | None = setting(
        None, "An evaluated run over the first blocks, for findings (c) and (e)."
    ),
    early_layers: int | None = setting(
        None, "Last of the first blocks, if DIR itself covers them."
    ),
    l0_series: Path | None = setting(
        None, "An evaluated run over SAEs of several L0s at two layers, for finding (g)."
    ),
    second_seed: str | None = setting(
        None, "An SAE of one of the run's layers, trained with another seed: a ceiling."
    ),
    untrained: str | None = setting(None, "An untrained SAE of one of the run's layers: a floor."),
    model: str | None = setting(
        None, "Language model for these two SAEs: name on the Hub, path or smollm2."
    ),
    as_json: bool = False,
) -> None:
    """Check the SAE Match paper's findings on an evaluated run."""
    from saematch._io import files
    from saematch.cli.display import terminal as display
    from saematch.cli.display.evaluation import findings_shown, findings_text
    from saematch.loading import load_sae
    from saematch.models import load_language_model
    from saematch.report.findings import find, reference

    quiet_libraries()
    with display.steps(as_json, "reading what was evaluated") as tell:
        answer = find(directory, early, l0_series, early_layers)
        main, lines, found = answer.main, answer.lines, answer.findings
        loaded = None
        given = {"ceiling (another seed)": second_seed, "floor (untrained)": untrained}
        for name, sae in given.items():
            if sae is None:
                continue
            if tell is not None:
                tell(0, 1, f"measuring {sae}")
            other = load_sae(sae)
            own = load_sae(main.reference_at(other.layer))
            loaded = loaded or load_language_model(model or main.model_name)
            lines.append(reference(name, own, other, main, loaded))
    path = directory / "findings.md"
    files.write_atomically(path, findings_text(main, lines, found).encode())
    if as_json:
        headline = [{"name": one.name, **one.measures} for one in lines]
        print_json({"headline": headline, "findings": [dataclasses.asdict(one) for one in found]})
    else:
        findings_shown(main, lines, found, path)
