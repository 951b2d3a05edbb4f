"""The command line as a user meets it: output, files, exit codes, one or two lines of error."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
from rich.console import Console
from tiny_suites import write_sae, write_suite

from saematch import load_sae, match
from saematch.cli import app, main
from saematch.cli.display import terminal as display
from saematch.matching.matchers import matchers
from saematch.pipelines import open_run

Call = Callable[..., tuple[int, str, str]]
GROUP: Any = typer.main.get_command(app)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_suite(tmp_path_factory.mktemp("suite"))


@pytest.fixture(scope="module")
def finished(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory made by the command line."""
    out = tmp_path_factory.mktemp("run") / "out"
    patch = pytest.MonkeyPatch()
    patch.setattr(sys, "argv", ["saematch", "run", "--suite", str(suite), "--out", str(out)])
    main()
    patch.undo()
    return out


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command; returns the exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["saematch", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv = ['saematch', '--help']\n"
        "from saematch.cli import main; main()\n"
        "heavy = {'torch', 'numpy', 'pandas', 'pyarrow', 'duckdb', 'transformers', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for verb in ("demo", "inspect", "match", "run", "evaluate", "findings", "paths", "export"):
        assert verb in done.stdout


@pytest.mark.parametrize("verb", ["", *GROUP.commands])
def test_help_fits_80_columns_and_no_word_is_cut(
    call: Call, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = call(*filter(None, (verb, "--help")))
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out
    assert "..." not in out.replace("[ARGS]...", "")
    assert verb or all(name in out for name in GROUP.commands)


def test_inspect_shows_what_is_there(call: Call, suite: Path) -> None:
    code, out, _ = call("inspect", suite / "layer_3")
    assert code == 0
    assert "d_model 8, d_sae 16" in out
    assert "15 live, 1 degenerate" in out

    code, out, _ = call("inspect", suite / "layer_3", "--json")
    assert code == 0
    assert json.loads(out)["d_sae"] == 16


def test_match_writes_what_the_library_finds(call: Call, suite: Path, tmp_path: Path) -> None:
    a, b = suite / "layer_3", suite / "layer_4"
    code, out, _ = call("match", a, b, "--parts", "decoder", "-o", tmp_path / "m.parquet", "--json")
    assert code == 0
    expected = match(load_sae(str(a)), load_sae(str(b)), parts=("decoder",))
    written = pd.read_parquet(tmp_path / "m.parquet")
    np.testing.assert_array_equal(written["partner"], expected.permutation)
    np.testing.assert_array_equal(written["cost"], expected.cost)
    summary = json.loads(out)["matchings"][0]
    assert summary["total_cost"] == pytest.approx(expected.cost.sum())


def test_degenerate_features_apart_or_together(call: Call, suite: Path, tmp_path: Path) -> None:
    a, b = suite / "layer_3", suite / "layer_4"
    sides = load_sae(str(a)), load_sae(str(b))
    for way in ("apart", "together"):
        written = tmp_path / f"{way}.parquet"
        code, out, _ = call("match", a, b, "--degenerate", way, "--json", "-o", written)
        assert code == 0
        expected = match(*sides, degenerate=way)
        np.testing.assert_array_equal(pd.read_parquet(written)["partner"], expected.permutation)
        assert json.loads(out)["matchings"][0]["gap"] == pytest.approx(expected.gap, abs=1e-12)

    def made(way: str) -> dict[str, bytes]:
        code, _, _ = call(
            "run", "--suite", suite, "--out", tmp_path / "r", "--degenerate", way, "--json"
        )
        assert code == 0
        assert open_run(tmp_path / "r").config.degenerate == way
        files = (tmp_path / "r").rglob("*.parquet")
        return {file.relative_to(tmp_path / "r").as_posix(): file.read_bytes() for file in files}

    apart, together, again = made("apart"), made("together"), made("apart")
    changed = {name for name in apart if apart[name] != together[name]}
    assert {
        f"matchings/folded/decoder+encoder+bias/{pair}.parquet" for pair in ("3--4", "4--5")
    } <= changed
    assert {"paths.parquet", "evaluation/measures/weights.parquet"} <= changed
    assert not [name for name in changed if name.startswith(("candidates/", "matchings/cosine/"))]
    frames = (pd.read_parquet(io.BytesIO(of["paths.parquet"])) for of in (apart, again))
    pd.testing.assert_frame_equal(*frames)


def test_no_fold_is_the_unfolded_strategy(call: Call, suite: Path) -> None:
    code, out, _ = call("match", suite / "layer_3", suite / "layer_4", "--no-fold", "--json")
    assert code == 0
    assert json.loads(out)["matchings"][0]["strategy"] == "unfolded"


def test_compare_shows_the_strategies_of_a_run(call: Call, suite: Path) -> None:
    ends = suite / "layer_3", suite / "layer_4"
    code, out, _ = call("match", *ends, "--compare", "--matcher", "transport:2", "--json")
    strategies = [row["strategy"] for row in json.loads(out)["matchings"]]
    assert code == 0
    assert strategies == ["transport_2", "folded", "unfolded", "naive", "random", "cosine"]
    random = json.loads(out)["matchings"][4]
    assert random["mse_decoder_low"] < random["mse_decoder"] < random["mse_decoder_high"]
    # naive has no meaning where the widths differ, and is not shown
    code, out, _ = call("match", suite / "layer_4", suite / "layer_5", "--compare")
    assert code == 0
    assert "naive" not in out


def test_run_names_its_directory_and_report(call: Call, suite: Path, tmp_path: Path) -> None:
    code, out, _ = call("run", "--suite", suite, "--out", tmp_path / "run", "--layers", "3-4")
    assert code == 0
    assert "3 → 4" in out
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_config_file_says_the_same_as_flags(call: Call, suite: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text(f'suite = "{suite}"\nlayers = "3-4"\nseed = 7\n')
    code, out, _ = call("run", "--config", config, "--seed", 8, "--out", tmp_path / "a", "--json")
    assert code == 0
    assert json.loads((tmp_path / "a" / "manifest.json").read_text())["config"]["seed"] == 8
    code, by_flags, _ = call(
        "run", "--suite", suite, "--layers", "3-4", "--seed", 8, "--out", tmp_path / "b", "--json"
    )
    assert json.loads(by_flags)["measures"] == json.loads(out)["measures"]


def test_paths_follows_a_feature(call: Call, finished: Path) -> None:
    composed = ("--method", "composition")
    code, out, _ = call("paths", finished, "--feature", "3/5", *composed, "--json")
    assert code == 0
    steps = json.loads(out)
    assert [step["layer"] for step in steps] == [3, 4, 5]
    table = pd.read_parquet(finished / "paths.parquet")
    number = table.loc[(table["layer"] == 3) & (table["feature"] == 5), "path"].item()
    expected = table.loc[table["path"] == number, "feature"].tolist()
    assert [step["feature"] for step in steps] == expected

    code, out, _ = call("paths", finished, "--feature", " 3/5 ", *composed)
    assert code == 0
    assert "nearest under a one-to-one matching" in out


@pytest.mark.parametrize("method", ["consensus", "exact"])
def test_paths_says_what_becomes_of_a_feature(call: Call, finished: Path, method: str) -> None:
    code, out, _ = call("paths", finished, "--feature", "3/5", "--method", method, "--json")
    assert code == 0
    printed = json.loads(out)
    followed = open_run(finished).followed(method)
    number = followed.loc[(followed["layer"] == 3) & (followed["feature"] == 5), "path"].item()
    expected = followed.loc[followed["path"] == number, "feature"].tolist()
    assert [member["feature"] for member in printed["path"]] == expected
    assert [one["feature"] for one in printed["along"]] == expected
    code, out, _ = call("paths", finished, "--feature", "3/5", "--method", method)
    assert code == 0
    assert " ".join(out.split()).startswith(printed["sentence"])


def test_a_path_fits_80_columns_and_no_number_is_cut(
    monkeypatch: pytest.MonkeyPatch, finished: Path
) -> None:
    steps = open_run(finished).follow("3", 0)
    assert "degenerate" in set(steps["status"])
    worst = steps.assign(
        feature=123456, status="degenerate", cost=3.4212e-05, cosine=-0.0123, margin=3.4212e-07,
        quantile=1.0, certain=False, runner_up=123456, runner_up_extra_cost=-3.4212e-05,
        runner_up_status="degenerate", warnings=[()] * len(steps),
    )  # fmt: skip
    dying = worst.assign(born=True, dies=True)
    large = worst.assign(cost=123456.7, margin=98765.4, runner_up_extra_cost=-123.456)
    numbers = "123456 3.4e-05 100% -0.01 3.4e-07 (-3.4e-05)"
    for shown, expected in (
        (worst, f"degenerate {numbers}"), (dying, numbers), (large, "123457 98765 (-123)"),
        (steps, "degenerate"),
    ):  # fmt: skip
        written = io.StringIO()
        monkeypatch.setattr(display, "CONSOLE", Console(width=80, file=written))
        display.path(shown, "3", 0)
        said = written.getvalue()
        assert "…" not in said
        assert max(map(len, said.splitlines())) <= 80
        assert all(said.count(one) >= len(shown) - (shown is steps) for one in expected.split()), (
            said
        )


@pytest.mark.parametrize("strategies", [5, 7, 12])
def test_a_summary_fits_80_columns_and_no_number_is_cut(
    monkeypatch: pytest.MonkeyPatch, finished: Path, strategies: int
) -> None:
    """Five strategies are columns, as before; with more of them pairs are, in several tables if need be."""
    run = open_run(finished)
    names = tuple(one.name for one in matchers() if not one.needs_data)[:strategies]
    assert len(names) == strategies
    pairs = tuple((str(n), str(n + 1)) for n in range(10, 20))
    rows = [
        {"a": a, "b": b, "strategy": name, "measure": "mse_decoder", "value": 0.01 + 1e-5 * (100 * p + s)}
        for p, (a, b) in enumerate(pairs) for s, name in enumerate(names)
    ]  # fmt: skip
    for a, b in pairs:
        for name, measure, value in (
            (names[0], "compared", 2082), ("folded", "gap", 3.9e-13), ("folded", "certain_share", 1),
        ):  # fmt: skip
            rows.append({"a": a, "b": b, "strategy": name, "measure": measure, "value": value})
    monkeypatch.setattr(type(run), "measures", lambda self: pd.DataFrame(rows))
    monkeypatch.setattr(type(run), "pairs", pairs)
    monkeypatch.setitem(vars(run), "config", replace(run.config, strategies=names))
    written = io.StringIO()
    monkeypatch.setattr(display, "CONSOLE", Console(width=80, file=written))
    display.run_summary(run, Path("out"))
    said = written.getvalue()
    assert "…" not in said
    assert max(map(len, said.splitlines())) <= 80
    for row in rows[: 10 * strategies]:
        assert f" {row['value']:.4g}" in said
    tables = said.count("──\n")
    assert ("pair " in said, tables) == ((True, 1) if strategies == 5 else (False, 2))


def test_export_names_what_it_wrote(call: Call, finished: Path, tmp_path: Path) -> None:
    code, out, _ = call("export", finished, "--format", "csv", "--out", tmp_path / "e")
    assert code == 0
    for line in out.split():
        assert len(pd.read_csv(line)) > 0


def test_one_is_no_plural_anywhere(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of one pair, one random draw, one path in the page."""
    monkeypatch.setenv("SAEMATCH_CACHE", str(tmp_path / "cache"))
    suite, out, page = (
        write_suite(tmp_path / "suite", (2, 2)),
        tmp_path / "run",
        tmp_path / "p.html",
    )
    said = []
    for arguments in (
        ("run", "--suite", suite, "--out", out, "--random-draws", 1),
        ("match", suite / "layer_3", suite / "layer_4", "--compare", "--price-curve"),
        ("figures", out),
        ("explore", out, "--export", page, "--features", "3/1"),
    ):
        code, shown, error = call(*arguments)
        assert code == 0, error
        said.append(shown)
    assert "1 path, 2 features" in said[-1].replace("\n", " ")
    report = (out / "report.html").read_text()
    assert "1 adjacent layer pair," in report
    pictures = [path.read_text() for path in (out / "figures").rglob("*.svg")]
    assert any("1 live pair of" in one for one in pictures)
    nouns = "pair|path|feature|label|SAE|autoencoder|draw|text|document|question|line"
    wrong = re.compile(rf"(?<![\d.,/→-])1 (?:[a-z]+ ){{0,2}}(?:{nouns})s\b")
    for one in (*said, report, *pictures):
        assert not wrong.search(one), wrong.search(one)


def test_version(call: Call) -> None:
    code, out, _ = call("--version")
    assert code == 0
    assert out.startswith("saematch ")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("match",), 2, "REF_A"),
        (("nonsense",), 2, "nonsense"),
        (("inspect", "no/such/place"), 3, "no/such/place"),
        (("match", "{suite}/layer_3", "{suite}/layer_4", "--parts", "nose"), 2, "decoder"),
        (("match", "{suite}/layer_3", "{suite}/layer_4", "-o", "m.txt"), 2, ".parquet"),
        (("match", "{suite}/layer_3", "{suite}/layer_4", "-o", "{tmp}/no/m.parquet"), 2, "folder"),
        (("match", "{suite}/layer_3", "{suite}/layer_4", "--scale", "weight"), 2, "decoder_norm"),
        (("run", "--out", "{tmp}/r"), 2, "suite"),
        (("run", "--suite", "{suite}", "--layers", "9", "--out", "{tmp}/r"), 2, "3, 4, 5"),
        (("run", "--suite", "{suite}", "--layers", "3-4,4", "--out", "{tmp}/r"), 2, "twice"),
        (("run", "--config", "{tmp}/none.toml", "--out", "{tmp}/r"), 2, "none.toml"),
        (("paths", "{tmp}", "--feature", "3/5"), 3, "run"),
        (("paths", "{finished}", "--feature", "345"), 2, "LAYER/INDEX"),
        (("paths", "{finished}", "--feature", "9/5"), 2, "3, 4, 5"),
        (("paths", "{finished}", "--feature", "3/16"), 2, "0 to 15"),
        (("export", "{finished}", "--format", "xml"), 2, "csv"),
    ],
)
def test_errors_are_short_and_have_their_exit_code(
    call: Call,
    suite: Path,
    finished: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    places = {"suite": suite, "finished": finished, "tmp": tmp_path}
    found, out, err = call(*(argument.format(**places) for argument in arguments))
    assert found == code, err
    assert words in err
    assert err.startswith("saematch: ")
    assert len(err.strip().splitlines()) <= 2
    assert "Traceback" not in err
    assert out == ""


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (("judge", "DIR", "--sampels", "3"), "--samples; try: saematch judge --help"),
        (("run", "--sutie", "x"), "--suite; try: saematch run --help"),
        (("evalute", "DIR"), "'evaluate'"),
    ],
)
def test_a_mistyped_flag_or_verb_names_the_nearest(
    call: Call, arguments: tuple[str, ...], nearest: str
) -> None:
    code, _, err = call(*arguments)
    assert code == 2
    assert f"id you mean {nearest}" in err


def test_debug_shows_the_traceback(call: Call) -> None:
    code, _, err = call("--debug", "inspect", "no/such/place")
    assert code == 3
    assert "Traceback" in err


def test_an_altered_result_is_named(call: Call, suite: Path, tmp_path: Path) -> None:
    call("run", "--suite", suite, "--out", tmp_path / "run")
    table = tmp_path / "run" / "paths.parquet"
    table.write_bytes(table.read_bytes()[:-9])
    code, _, err = call("paths", tmp_path / "run", "--feature", "3/5")
    assert code == 3
    assert "paths.parquet" in err


def test_thresholds_at_zero_name_the_feature(call: Call, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = write_sae(tmp_path / "layer_3", 3)
    weights = load_file(folder / "sae_weights.safetensors")
    weights["threshold"][4] = 0
    save_file(weights, folder / "sae_weights.safetensors")
    code, _, err = call("match", folder, folder)
    assert code == 3
    assert "feature 4" in err


def test_without_thresholds_only_matchers_by_scale_need_one(call: Call, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    pair = [write_sae(tmp_path / f"layer_{layer}", layer) for layer in (3, 4)]
    for folder in pair:
        weights = load_file(folder / "sae_weights.safetensors")
        del weights["threshold"]
        save_file(weights, folder / "sae_weights.safetensors")
        config = json.loads((folder / "cfg.json").read_text())
        (folder / "cfg.json").write_text(json.dumps({**config, "architecture": "standard"}))
    for matcher in ("cosine", "transport:2"):
        code, out, err = call("match", *pair, "--matcher", matcher, "--json")
        assert code == 0, err
        assert json.loads(out)["matchings"][0]["strategy"] == matcher.replace(":", "_")
    code, _, err = call("match", *pair)
    assert code == 2
    assert "name a scale" in err


def test_match_at_a_price_checked_from_scratch(suite: Path, call: Call) -> None:
    pair = (str(suite / "layer_3"), str(suite / "layer_4"))
    options = ("--unmatched-cost", "3", "--verify", "--price-curve")
    code, out, _ = call("match", *pair, *options, "--json")
    assert code == 0
    printed = json.loads(out)
    assert printed["verification"]["faults"] == []
    shares = [row["share"] for row in printed["price_curve"]]
    assert shares == sorted(shares)
    assert printed["matchings"][0]["unmatched_a"] > 0
    code, out, _ = call("match", *pair, *options)
    assert code == 0
    assert "holds" in out
    assert "die" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--unmatched-cost", "cheap"), "a number from 0 on"),
        (("--unmatched-cost", "-1"), "a number from 0 on"),
        (("--time-budget", "-1"), "budget"),
        (("--no-fold", "--price-curve"), "--no-fold"),
    ],
)
def test_prices_and_budgets_that_are_none(
    suite: Path, call: Call, options: tuple[str, ...], message: str
) -> None:
    code, _, error = call("match", str(suite / "layer_3"), str(suite / "layer_4"), *options)
    assert code == 2
    assert message in error


def test_a_run_at_a_price_says_what_dies(suite: Path, tmp_path: Path, call: Call) -> None:
    out = tmp_path / "run"
    code, printed, _ = call(
        "run", "--suite", str(suite), "--out", str(out), "--unmatched-cost", "10"
    )
    assert code == 0
    assert "features die" in printed
    report = (out / "report.html").read_text()
    assert "Features that die and are born" in report
    assert "compared under no\nstrategy" in report
    paths = pd.read_parquet(out / "paths.parquet")
    assert paths["dies"].any()
    assert paths["born"].any()
    feature = int(paths.loc[paths["dies"] & (paths["layer"] == 3), "feature"].iloc[0])
    composed = ("--method", "composition")
    code, printed, _ = call("paths", str(out), "--feature", f"3/{feature}", *composed)
    assert code == 0
    assert "(dies)" in printed


@pytest.mark.parametrize("kind", [KeyboardInterrupt, typer.Abort])
def test_an_interrupt_is_no_success(
    kind: type[BaseException],
    suite: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise kind

    monkeypatch.setattr("saematch.pipelines.describe.describe", interrupted)
    monkeypatch.setattr(sys, "argv", ["saematch", "describe", str(suite)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 130
    assert "interrupted; what was finished is kept" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["describe", "judge", "evaluate", "figures"])
def test_where_no_run_is_nothing_is_made(call: Call, tmp_path: Path, command: str) -> None:
    code, _, err = call(command, str(tmp_path / "nothing"))
    assert code == 3
    assert "expected a run" in err
    assert not (tmp_path / "nothing").exists()
