"""Descriptions of one's own, judged without a run directory."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from saematch.errors import UsageError
from saematch.semantics.judges.protocol import Judge, Judgement, Question

if TYPE_CHECKING:
    import pandas as pd


def judge(pairs: Sequence[Sequence[str]], judge: Judge) -> "pd.DataFrame":
    """Ask a judge about pairs of descriptions: one row per pair, with what the judge said.

    Columns besides the two texts: outcome, label (DIFFERENT, MAYBE, SAME; missing if there is none),
    score, reason, reply, model, attempts, seconds, prompt_tokens, completion_tokens, cost.  Judges:
    `EmbeddingJudge` (calibrated on controls), `LLMJudge`.  What a judge is worth is seen from controls:
    put pairs that are the same, and pairs drawn at random, among yours.

    Raises UsageError for pairs that are not two texts, and what the judge raises.
    """
    import pandas as pd

    wrong = [pair for pair in pairs if len(pair) != 2 or not all(isinstance(t, str) for t in pair)]
    if wrong:
        raise UsageError(f"expected pairs of two texts, got {str(wrong[0])[:80]}")
    questions = [Question(first, second) for first, second in pairs]
    found: dict[int, Judgement] = {}
    judge.judge(questions, found.__setitem__)
    names = (
        "outcome", "label", "score", "reason", "reply", "model", "attempts", "seconds",
        "prompt_tokens", "completion_tokens", "cost",
    )  # fmt: skip
    rows = [
        {
            "first": question.first,
            "second": question.second,
            **{name: getattr(found[number], name, None) for name in names if number in found},
        }
        for number, question in enumerate(questions)
    ]
    frame = pd.DataFrame(rows, columns=pd.Index(["first", "second", *names]))
    for name in ("outcome", "label"):
        frame[name] = [None if value is None else str(value) for value in frame[name]]
    return frame
