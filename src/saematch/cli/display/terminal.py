"""What people see on the terminal: rich tables, spinners and bars.  Nothing is computed here."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.status import Status
from rich.table import Table
from rich.text import Text

from saematch.matching.matchers import MAIN, matchers
from saematch.text import plural, printable
from saematch.types import RANDOM_DRAWS

if TYPE_CHECKING:
    from saematch.assignment import Verification
    from saematch.loading import Inspection
    from saematch.matching.matched import Matching
    from saematch.rendering import Drawn
    from saematch.store.becoming import Becoming
    from saematch.store.build import Progress as Tell
    from saematch.store.reader import Run
    from saematch.types import Interval


def _harmless(text: str) -> str:
    return "\n".join(printable(line, None) for line in text.split("\n"))


class Terminal(Console):
    """Shows texts as they are, whoever wrote them: square brackets are no markup, and what could move the
    cursor is spelled out."""

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False)

    def render_str(self, text: str, **keywords: Any) -> Text:
        return super().render_str(_harmless(text), **keywords)


def styled(*parts: str | tuple[str, str]) -> Text:
    """A text of parts, those with a style as (text, style), for `Terminal`."""
    pairs = ((part, "") if isinstance(part, str) else part for part in parts)
    return Text.assemble(*((_harmless(text), style) for text, style in pairs))


CONSOLE = Terminal()
SIGNS = Terminal(stderr=True)
"""Spinners and bars go to stderr, so that stdout holds results alone."""


@contextmanager
def progress(quiet: bool = False) -> Iterator["Tell | None"]:
    """A bar that follows a run: yields what to tell of each step."""
    if quiet:
        yield None
        return
    columns = (
        BarColumn(24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=SIGNS, transient=True, disable=not SIGNS.is_terminal) as bar:
        task = bar.add_task("starting", total=None)

        def tell(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=printable(what))

        yield tell


@contextmanager
def steps(quiet: bool = False, what: str = "starting") -> Iterator["Spinner | None"]:
    """A spinner that says what is being done, for work whose length is not known."""
    if quiet:
        yield None
        return
    with SIGNS.status(styled(what)) as status:
        yield Spinner(status)


@dataclass(frozen=True)
class Spinner:
    """Says what is being done; stands still while somebody is asked something."""

    status: Status

    def __call__(self, _done: int, _total: int, what: str) -> None:
        self.status.update(styled(what))

    @contextmanager
    def still(self) -> Iterator[None]:
        """Leaves the terminal to a question and its answer."""
        self.status.stop()
        try:
            yield
        finally:
            self.status.start()


def inspection(found: "Inspection") -> None:
    facts = Table.grid(padding=(0, 2))
    activation = found.activation + (f" (k = {found.k})" if found.k else "")
    dead = "not recorded"
    if found.dead is not None:
        dead = f"{found.dead} (on {found.firing_tokens:,} tokens: {found.firing_corpus})"
    for name, value in (
        ("reference", found.reference),
        ("format", found.format),
        ("layer", f"{found.layer}" + (f", {found.hook}" if found.hook else "")),
        ("model", found.model or "not recorded"),
        ("activation", activation),
        ("shape", f"d_model {found.d_model}, d_sae {found.d_sae}"),
        ("thresholds", _quantiles(found.threshold)),
        ("decoder norms", _quantiles(found.decoder_norm)),
        ("encoder norms", _quantiles(found.encoder_norm)),
        ("features", f"{found.live} live, {found.degenerate} degenerate; dead: {dead}"),
        ("size", f"{found.bytes / 2**20:.1f} MiB"),
        ("trained on", "centred weights (TransformerLens)" if found.centred else ""),
        ("converted", "; ".join(found.conversions) or "nothing"),
    ):
        if value:
            facts.add_row(styled((name, "bold")), value)
    CONSOLE.print(facts)
    stored = new_table("tensor as stored", "shape", "dtype")
    for tensor in found.tensors:
        stored.add_row(tensor.name, " × ".join(map(str, tensor.shape)), tensor.dtype)
    CONSOLE.print(stored)


def matchings(
    found: "Matching", rows: "Mapping[str, Mapping[str, Interval]]", output: Path | None
) -> None:
    """One matching's proof and, next to it, the other strategies on the same pair."""
    columns = ("mse_decoder", "mse_decoder_raw", "mse_encoder", "cosine", "mean_cost")
    table = new_table("strategy", "MSE dec", "raw", "MSE enc", "cosine", "cost", "certain")
    for strategy, measures in rows.items():
        values = {name: one.value for name, one in measures.items()}
        shown = (number(values.get(name)) for name in columns)
        table.add_row(strategy, *shown, _percent(values.get("certain_share")))
    CONSOLE.print(styled((found.a.reference, "bold"), " → ", (found.b.reference, "bold")))
    CONSOLE.print(table)
    compared, left_out = (rows[found.strategy][name].value for name in ("compared", "left_out"))
    same = "the same " if len(rows) > 1 else ""
    CONSOLE.print(
        f"On folded weights ({found.scale}); raw: decoder MSE on the weights as shipped. Means over "
        f"{same}{plural(int(compared), 'feature')} of A: live, with a partner ({left_out:.0f} left out)."
    )
    for drawn in (one.name for one in matchers() if one.seeded and one.name in rows):
        _, low, high = rows[drawn]["mse_decoder"]
        CONSOLE.print(
            f"{drawn}: mean of {RANDOM_DRAWS} draws, decoder MSE from {number(low)} to {number(high)}."
        )
    if found.assignment is not None:
        proof = "optimal to 1e-6" if found.optimal else "not proven optimal"
        CONSOLE.print(f"The {found.strategy} matching is {proof} (gap {number(found.gap)}).")
    shares = ", ".join(f"{part} {share:.1%}" for part, share in found.shares.items())
    CONSOLE.print(f"Shares of the cost on folded weights: {shares}.")
    unmatched = int((~found.matched).sum())
    if unmatched or len(found.unmatched_b):
        price = found.unmatched_cost
        at = f" at a price of {number(price)}" if isinstance(price, float) else ""
        CONSOLE.print(
            f"Unmatched{at}: {unmatched} of {found.a.d_sae} features of A die, "
            f"{len(found.unmatched_b)} of {found.b.d_sae} of B are born."
        )
    if found.assignment is not None:
        took = sum(found.assignment.seconds.values())
        CONSOLE.print(f"Solved by {found.assignment.solver} in {took:.2f} s.")
    show_notes(found.notes)
    if output is not None:
        CONSOLE.print(f"Pairs written to {output}")


def verification(checked: "Verification") -> None:
    verdict = ("holds", "green") if checked.ok else ("; ".join(checked.faults), "red")
    sums = f"total {checked.primal:.9g}, proven bound {checked.dual:.9g}"
    least = f"least reduced cost {checked.worst:.2g}; {checked.seconds:.1f} s"
    said = "Checked from scratch over all pairs in float64: "
    CONSOLE.print(styled(said, verdict, f" ({sums}, {least})."))


def curve(rows: pd.DataFrame) -> None:
    """Share of features matched against the price of leaving one unmatched."""
    table = new_table("price", "random pairs below", "matched", "of A", "of live A", "mean cost")
    for row in rows.to_dict("records"):
        price, below, cost = number(row["price"]), f"{row['quantile']:.2%}", number(row["cost"])
        shares = _percent(row["share"]), _percent(row["live_share"])
        table.add_row(price, below, str(row["matched"]), *shares, cost)
    CONSOLE.print(table)
    CONSOLE.print(
        f"Mean cost: over the {plural(int(rows['compared'].iloc[0]), 'live feature')} of A with a partner at "
        "every price."
    )


def run_summary(finished: "Run", out: Path) -> None:
    """Decoder MSE per pair and strategy, the proof, and where things are."""
    measures = finished.measures()
    strategies = [*finished.config.strategies]
    rows: dict[str, list[str]] = {}
    for a, b in finished.pairs:
        here = measures[(measures["a"] == a) & (measures["b"] == b)]
        values = here.set_index(["strategy", "measure"])["value"]
        rows[f"{a} → {b}"] = [
            *(number(values.get((s, "mse_decoder"))) for s in strategies),
            f"{values[strategies[0], 'compared']:.0f}",
            _short(values.get((MAIN, "gap"))),
            _percent(values.get((MAIN, "certain_share"))),
        ]
    if finished.config.unmatched_cost is not None:
        counts = measures[measures["strategy"] == MAIN].groupby("measure")["value"].sum()
        CONSOLE.print(
            f"At a price of {finished.config.unmatched_cost}, over all pairs of SAEs: "
            f"{counts['unmatched_a']:.0f} of the features die, {counts['unmatched_b']:.0f} are born."
        )
    CONSOLE.print(
        "Decoder MSE on folded weights by strategy, over the same features of the earlier SAE of each pair:"
    )
    for table in _fitting("pair", [*strategies, "features", "gap", "certain"], rows):
        CONSOLE.print(table)
    show_notes(finished.manifest["notes"])
    CONSOLE.print(f"Run directory: {out}\nReport:        {out / 'report.html'}")


def next_steps(out: Path) -> None:
    CONSOLE.print(
        f"\nNext: open {out / 'report.html'} in a browser, or follow a feature:\n"
        f"  saematch paths {out} --feature 12/345\n"
        f"or draw the paper's figures from it:\n  saematch figures {out}\n"
        f"or look through all of it in a browser:\n  saematch explore {out}"
    )


def figures_drawn(drawn: "Sequence[Drawn]", directory: Path) -> None:
    """A row per figure that was drawn; for the others what they lack, and the command that makes it, or
    the altered file that keeps them back."""
    table = new_table("figure", "file")
    for one in drawn:
        if one.files:
            table.add_row(" and ".join(one.numbers) or "-", one.files[0])
    table.columns[1].justify = "left"
    CONSOLE.print(table)
    CONSOLE.print(f"In {directory}, each as .svg and .png; their captions say on what.")
    missing = [one for one in drawn if not one.files]
    if missing:
        CONSOLE.print("\nNot drawn:")
    for one in missing:
        if not one.altered:
            _say(f"  {_named(one)} needs {one.needed}:\n    {one.command}")
    for why in dict.fromkeys(one.altered for one in missing if one.altered):
        names = ", ".join(_named(one) for one in missing if one.altered == why)
        _say(f"  {names}:\n    {why}")


def _named(one: "Drawn") -> str:
    return f"{' and '.join(one.numbers)} ({one.name})" if one.numbers else one.name


def _say(text: str) -> None:
    CONSOLE.print(text, highlight=False, soft_wrap=True)


def path(steps: pd.DataFrame, key: str, feature: int) -> None:
    """One feature through the layers, one row per layer."""
    table = new_table(
        "layer", "feature", "status", "cost", "rank", "cosine", "margin", "certain", "runner-up"
    )
    _narrow(table, 0, 2)
    for step in steps.to_dict("records"):
        other = ""
        if not pd.isna(step["runner_up"]):
            other = f"{step['runner_up']} ({_short(step['runner_up_extra_cost'], '+')})"
        table.add_row(
            str(step["key"]) + (" (born)" * step["born"]) + (" (dies)" * step["dies"]),
            styled((str(step["feature"]), "bold" if step["key"] == key else "")),
            step["status"],
            _short(step["cost"]),
            _percent(step["quantile"]),
            number(step["cosine"], ".2f"),
            _short(step["margin"]),
            "" if pd.isna(step["cost"]) else ("yes" if step["certain"] else "no"),
            other,
        )
    CONSOLE.print(f"Feature {key}/{feature}: nearest under a one-to-one matching, layer by layer")
    CONSOLE.print(table)
    for step in steps.to_dict("records"):
        if step["warnings"]:
            name = f"{step['key']}/{step['feature']}"
            CONSOLE.print(styled(("warning", "yellow"), f" {name}: {'; '.join(step['warnings'])}"))
    CONSOLE.print(
        "Each row is the step into its layer. rank: where its cost lies among the live "
        "pairs (100%: the most costly). certain: every optimal matching takes the step. margin: "
        "proven rise of the total if it were forbidden. runner-up: the nearest other live feature "
        "(and its extra cost; below zero it is nearer, but was given to another feature, as "
        "small features are near to everything)."
    )


def becoming(found: "Becoming", along: "Sequence[Becoming]") -> None:
    """What becomes of a feature, in words, and its path, with what becomes of each member."""
    CONSOLE.print(styled((found.sentence, "bold")))
    table = new_table("layer", "feature", "cosine", "as before", "as start", "what becomes of it")
    table.columns[-1].justify, table.columns[-1].no_wrap = "left", False
    for member, one in zip(found.path, along, strict=True):
        others = ", ".join(
            f"{other.feature} ({number(other.probability, '.2f')})" for other in one.partners
        )
        fate = one.fate or ""
        table.add_row(
            member.key,
            styled((str(member.feature), "bold" if member.name == found.name else "")),
            *(
                number(value, ".2f")
                for value in (member.cosine, member.probability, member.start_probability)
            ),
            f"{fate}: {others}" if others else fate,
        )
    CONSOLE.print(table)
    CONSOLE.print(
        "cosine: of decoder rows, with the row above. as before, as start: probability that it is the "
        "same as the row above, and as the first row: on text, φ of the two is at least 0.3. What becomes "
        "of it: its fate at the next layer, and the features there that count as the same, with their "
        "probabilities."
    )
    for note in dict.fromkeys(note for one in along for note in one.notes):
        CONSOLE.print(styled(("note", "yellow"), f" {note}"))


def new_table(*columns: str) -> Table:
    """A table that fits 80 columns, its cells never broken."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    return table


def _narrow(table: Table, *names: int) -> None:
    """Nine columns leave no more room between them; names give way, numbers do not."""
    table.padding = (0, 0)
    for column in names:
        table.columns[column].no_wrap, table.columns[column].overflow = False, "fold"


def _fitting(corner: str, columns: list[str], rows: dict[str, list[str]]) -> list[Table]:
    """A table of these rows; where that is too wide, tables in which they are columns, as many in each as fit
    next to each other."""
    table = new_table(corner, *columns)
    _narrow(table, 0)
    for name, cells in rows.items():
        table.add_row(name, *cells)
    if _fits(table):
        return [table]
    blocks: list[list[str]] = [[]]
    for name in rows:
        if blocks[-1] and not _fits(_turned([*blocks[-1], name], columns, rows)):
            blocks.append([])
        blocks[-1].append(name)
    return [_turned(block, columns, rows) for block in blocks]


def _turned(names: list[str], columns: list[str], rows: dict[str, list[str]]) -> Table:
    table = new_table("", *names)
    for place, column in enumerate(columns):
        table.add_row(column, *(rows[name][place] for name in names))
    return table


def _fits(table: Table) -> bool:
    wide = CONSOLE.options.update(max_width=10_000)
    return CONSOLE.measure(table, options=wide).minimum <= CONSOLE.width


def _short(value: Any, sign: str = "") -> str:
    """Two or three significant digits in at most seven characters besides the minus, for tables of many
    columns; nothing if there is no value."""
    if value is None or pd.isna(value):
        return ""
    if 1e3 <= abs(value) < 1e6:
        return f"{value:{sign}.0f}"
    return f"{value:{sign}.{3 if 0.1 <= abs(value) < 1e3 else 2}g}"


def number(value: Any, form: str = ".4g") -> str:
    """Four significant digits, or another form; nothing if there is no value."""
    return "" if value is None or pd.isna(value) else f"{value:{form}}"


def _percent(value: Any) -> str:
    return number(value, ".0%")


def show_notes(notes: Iterable[str]) -> None:
    for note in notes:
        CONSOLE.print(styled(("note:", "yellow"), f" {note}"))


def _quantiles(pairs: Sequence[tuple[float, float]] | None) -> str:
    return ", ".join(f"{value:.4g} ({share:.0%})" for share, value in pairs or ())
