"""What a reader asks for, as text from an address, into a checked value and the SQL that selects it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from saematch.errors import UsageError
from saematch.explorer.catalogue_query import SEPARATOR, STEP_COLUMNS, step_column, strategies
from saematch.matching.matchers import MAIN
from saematch.semantics.judges.judge import Label
from saematch.store.following import StepWarning
from saematch.types import find_feature, find_key

MOST_CHARACTERS = 300
"""Characters of one value in an address."""
MOST_ROWS = 200
"""On one page."""
STATUSES = ("live", "dead", "degenerate")
LABELS = tuple(str(label) for label in Label)
PAIRS = {
    "live": "live_pair",
    "left out": "partner IS NOT NULL AND NOT live_pair",
    "dies": "matched AND partner IS NULL",
    "born": "born",
}
"""What becomes of a feature by the main matching: both it and its partner are live, or not both, it dies,
or it was born here."""
WARNINGS = ("none", "some", *(str(kind) for kind in StepWarning))
"""None, any, or one of that kind."""
RANGES = (
    "mse",
    "cost",
    "cosine",
    "margin",
    "activation_frequency",
    "quantile",
    "phi",
    "lift",
    "active",
)
"""Columns that can be bounded, as `mse_min` and `mse_max`; both ends included."""
SHARE = "share"
"""The order by the share of a feature's activation that is on the token that is looked for."""
SORTS = ("layer", *RANGES, "activation_count", SHARE)
_SOUGHT = "lower(trim(${}, ' '))"
"""A token that is looked for: blanks around it and capitals do not matter."""
FILTERS = (
    "text", "activates_on", "top_logits", "feature", "layer", "status", "label", "pairs", "strategy",
    "differs", "certain", "warnings",
    *(f"{name}_{end}" for name in RANGES for end in ("min", "max")),
)  # fmt: skip
PAGING = ("sort", "order", "limit", "offset")


@dataclass(frozen=True)
class Selection:
    """Features of some layers, in an order."""

    keys: tuple[str, ...]
    """SAEs to look in, in order of depth."""
    strategy: str
    """Whose step to the next layer is meant by partner, cost, mse, cosine and margin."""
    conditions: tuple[str, ...]
    """SQL, joined by AND; values are parameters."""
    values: Mapping[str, Any]
    sorted_by: str
    """The column of the order, which the order calls `sorted`."""
    order: str
    """SQL."""
    limit: int
    offset: int
    asked: Mapping[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        return " AND ".join(f"({one})" for one in self.conditions) or "true"


def parse_selection(asked: Mapping[str, str], widths: Mapping[str, int]) -> Selection:
    """The selection that an address asks for; raises UsageError for what it cannot mean.

    `widths`: the number of features of the SAEs there are by key, in order of depth.
    """
    check_names(asked, (*FILTERS, *PAGING))
    given = {name: value for name, value in asked.items() if value.strip()}
    strategy = one_of(given, "strategy", strategies(), MAIN)
    chosen = parse_keys(given.get("layer", ""), tuple(widths))
    conditions, values = [], {}
    if "feature" in given:
        key, index = find_feature(given["feature"], widths)
        chosen = tuple(one for one in chosen if one == key)
        conditions.append("feature = $feature")
        values["feature"] = index
    for place, word in enumerate(given.get("text", "").split()):
        conditions.append(f"contains(searched_text, lower($text{place}))")
        values[f"text{place}"] = word
    for name in ("activates_on", "top_logits"):
        if name in given:
            conditions.append(
                f"contains(searched_{name}, {SEPARATOR} || {_SOUGHT.format(name)} || {SEPARATOR})"
            )
            values[name] = _unescaped(given[name])
    if "status" in given:
        conditions.append("status = $status")
        values["status"] = one_of(given, "status", STATUSES, "")
    if "label" in given:
        conditions.append("list_contains(labels, $label)")
        values["label"] = one_of(given, "label", LABELS, "")
    if "pairs" in given:
        conditions.append(PAIRS[one_of(given, "pairs", tuple(PAIRS), "")])
    if "certain" in given:
        truth = one_of(given, "certain", ("yes", "no"), "")
        conditions.append("partner IS NOT NULL AND certain" if truth == "yes" else
                          "partner IS NOT NULL AND NOT certain")  # fmt: skip
    if "warnings" in given:
        kind = one_of(given, "warnings", WARNINGS, "")
        if kind in WARNINGS[:2]:
            conditions.append("len(warnings) > 0" if kind == "some" else "len(warnings) = 0")
        else:
            conditions.append("list_contains(warnings, $warning)")
            values["warning"] = kind
    if "differs" in given:
        others = tuple(one for one in strategies() if one != MAIN)
        other = one_of(given, "differs", others, "")
        conditions.append(
            f"matched AND {step_column('partner', other)} IS NOT NULL AND "
            f"partner IS DISTINCT FROM {step_column('partner', other)}"
        )
    for name in RANGES:
        column = _column(name, strategy)
        for end, sign in (("min", ">="), ("max", "<=")):
            if f"{name}_{end}" in given:
                conditions.append(f"{column} {sign} ${name}_{end}")
                values[f"{name}_{end}"] = number(given, f"{name}_{end}")
    sort = one_of(given, "sort", SORTS, SHARE if "activates_on" in given else "layer")
    usual = "desc" if sort == SHARE else "asc"
    direction = {"asc": "ASC", "desc": "DESC"}[one_of(given, "order", ("asc", "desc"), usual)]
    if sort == SHARE:
        if "activates_on" not in given:
            raise UsageError("expected a token to sort by its share, got none")
        column = _share_of(given["activates_on"], values)
        order = f"sorted {direction} NULLS LAST, list_position($all_keys, key), feature"
    elif sort == "layer":
        column = "feature"
        order = f"list_position($all_keys, key) {direction}, feature {direction}"
    else:
        column = _column(sort, strategy)
        order = f"sorted {direction} NULLS LAST, list_position($all_keys, key), feature"
    values["all_keys"] = list(widths)
    return Selection(
        chosen, strategy, tuple(conditions), values, column, order,
        whole_number(given, "limit", 50, 1, MOST_ROWS), whole_number(given, "offset", 0, 0, 1 << 40),
        dict(given),
    )  # fmt: skip


def last_page(total: int, limit: int) -> int:
    """The offset of the last page of so many rows; there is one."""
    return (total - 1) // limit * limit


def check_names(asked: Mapping[str, str], known: Sequence[str]) -> None:
    """Raises UsageError for a name that is not known, or a value that is too long."""
    for name, value in asked.items():
        if name not in known:
            raise UsageError(f"expected filters among {', '.join(known)}, got '{name[:80]}'")
        if len(value) > MOST_CHARACTERS or "\0" in value:
            raise UsageError(
                f"expected at most {MOST_CHARACTERS} characters for {name}, got {len(value)}"
            )


def one_of(
    asked: Mapping[str, str], name: str, known: Sequence[str], default: str
) -> str:  # fmt: skip
    """A value from a fixed list; raises UsageError for another."""
    value = asked.get(name, "") or default
    if value not in known:
        raise UsageError(f"expected {name} among {', '.join(known)}, got '{value[:80]}'")
    return value


def parse_keys(text: str, keys: Sequence[str]) -> tuple[str, ...]:
    """SAEs named as `12,13`, in order of depth; all of them for ''."""
    wanted = {find_key(one, keys) for one in text.split(",") if one.strip()}
    return tuple(key for key in keys if key in wanted or not wanted)


def number(asked: Mapping[str, str], name: str) -> float:
    """A finite number; raises UsageError for anything else."""
    try:
        value = float(asked[name])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"expected a number for {name}, got '{asked[name][:80]}'")
    return value


def whole_number(
    asked: Mapping[str, str], name: str, default: int, least: int, most: int
) -> int:  # fmt: skip
    """A whole number in a range; raises UsageError for anything else."""
    text = asked.get(name, "") or str(default)
    if not (text.isascii() and text.isdecimal()) or not least <= int(text[:20]) <= most:
        raise UsageError(f"expected {name} from {least} to {most}, got '{text[:80]}'")
    return int(text)


def _column(name: str, strategy: str) -> str:
    return step_column(name, strategy) if name in STEP_COLUMNS else name


def _share_of(token: str, values: dict[str, Any]) -> str:
    """SQL for how much of a feature's activation is on a token; NULL if it is in its examples alone."""
    values["shared"] = _unescaped(token)
    wanted = f"lambda one: lower(trim(one[1], ' ')) = {_SOUGHT.format('shared')}"
    found = f"list_filter(list_zip(activates_on, activates_on_share), {wanted})"
    return f"list_sum(list_transform({found}, lambda one: one[2]))"


def _unescaped(text: str) -> str:
    """Line ends and tabs as people type them."""
    return text.replace("\\n", "\n").replace("\\t", "\t")
