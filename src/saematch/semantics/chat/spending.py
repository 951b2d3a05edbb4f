"""What asking a language model costs, and the budget that it may not pass.

1. Before a call its greatest possible number of tokens is reserved: every byte of the prompt a token, and
   the whole reply that was allowed.  It starts only if all that was spent, is reserved and comes on top
   fits the budget, so that calls in flight together cannot pass it.
2. When the reply is there, what was reserved gives way to what the endpoint counted.

Tokens are counted in whole numbers and money follows from their sums, so no rounding adds up.
"""

import math
from dataclasses import dataclass

from saematch.errors import SaematchError, UsageError
from saematch.text import plural

PER = 1_000_000
BYTES_A_TOKEN = 4
"""About; English text."""
TOKENS_AROUND = 64
"""More than an endpoint's template puts around a conversation."""


class BudgetError(SaematchError):
    """A budget of calls or of money is used up; what was kept before stands."""


@dataclass(frozen=True)
class Prices:
    """Money per million tokens, in any one currency."""

    prompt: float
    completion: float

    def __post_init__(self) -> None:
        for value in (self.prompt, self.completion):
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"expected prices of 0 or more per million tokens, got {value}")

    def of(self, tokens: "Tokens") -> float:
        """What these tokens cost."""
        return (tokens.prompt * self.prompt + tokens.completion * self.completion) / PER


@dataclass(frozen=True)
class Tokens:
    """Tokens read and written by the endpoint's model."""

    prompt: int = 0
    completion: int = 0

    def __add__(self, other: "Tokens") -> "Tokens":
        return Tokens(self.prompt + other.prompt, self.completion + other.completion)

    def __sub__(self, other: "Tokens") -> "Tokens":
        return Tokens(self.prompt - other.prompt, self.completion - other.completion)


@dataclass(frozen=True)
class Estimate:
    """What some conversations will take, about, if the first reply to each can be read."""

    calls: int
    prompt_tokens: int
    """About a token for four bytes."""
    completion_tokens: int
    """The replies at the length that was assumed."""
    cost: float | None
    """In the currency of the prices; None: no prices were given."""


def about_tokens(text: str) -> int:
    """How many tokens a text is, about."""
    return -(-len(text.encode("utf-8", "replace")) // BYTES_A_TOKEN)


def most_tokens(*texts: str) -> int:
    """More tokens than these texts can be together: none is shorter than a byte."""
    return sum(len(text.encode("utf-8", "replace")) for text in texts) + TOKENS_AROUND


class Spending:
    """Counts calls and tokens, and says whether one more call fits the budget.

    A call is one reply asked for.  The client's own retries of refused requests (429, 5xx, no connection)
    belong to the call: they bring no reply, and endpoints bill none.  A reply without token counts, and
    one that did not arrive in time, counts as all that was reserved for it; where the client repeated a
    request after a time-out it counts once, and an endpoint that bills what nobody read may count more.
    """

    def __init__(
        self,
        prices: Prices | None = None,
        max_calls: int | None = None,
        max_cost: float | None = None,
    ) -> None:
        self.prices, self.max_calls, self.max_cost = prices, max_calls, max_cost
        self.calls = 0
        self.tokens = Tokens()
        self._reserved = Tokens()
        self.in_flight = 0

    @property
    def cost(self) -> float | None:
        """Money spent; None: no prices were given."""
        return None if self.prices is None else self.prices.of(self.tokens)

    def may_call(self) -> bool:
        """Whether the budget of calls has one left."""
        return self.max_calls is None or self.calls < self.max_calls

    def may_pay(self, most: Tokens) -> bool:
        """Whether the budget of money covers a call of that many tokens besides those in flight."""
        if self.prices is None or self.max_cost is None:
            return True
        return self.prices.of(self.tokens + self._reserved + most) <= self.max_cost

    def start(self, most: Tokens) -> None:
        """Count a call that starts, and reserve its tokens."""
        assert self.may_call()
        assert self.may_pay(most)
        self.calls += 1
        self.in_flight += 1
        self._reserved += most

    def end(self, most: Tokens, used: Tokens) -> None:
        """Put what a call used in place of what was reserved for it."""
        self.in_flight -= 1
        self._reserved -= most
        self.tokens += used

    def used_up(self) -> BudgetError:
        """Which budget it is that has nothing left."""
        if not self.may_call():
            budget = f"a budget of more than {plural(self.max_calls or 0, 'call')}"
            found = f"all {self.calls:,} made"
        else:
            budget = f"a budget of more than {self.max_cost:g}"
            found = f"{self.cost:g} spent, which leaves too little for one more call"
        return BudgetError(
            f"expected {budget}, got {found}; what was answered is kept: raise the budget and run the "
            "same command again to go on"
        )
