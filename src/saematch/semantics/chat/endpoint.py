"""What is said to a language model and what comes back, what that costs, and the endpoint that the model is
behind: where it is, how to ask it and how much, and what it was found not to know.

The API key comes from the environment alone, and no message, log, file or identity ever holds it: what
an endpoint sends back is searched for it, and the client's own errors, which hold the request with its
key, are never passed on.
"""

import json
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from saematch.errors import SaematchError, UsageError
from saematch.settings import Config, setting
from saematch.text import plural


@dataclass(frozen=True)
class Conversation:
    """What is said to the model, before its reply."""

    system: str
    """The instructions, the same for many conversations."""
    user: str
    reminder: str = ""
    """Added to the end where the reply before could not be read."""

    def messages(self, again: bool = False, system_role: bool = True) -> list[dict[str, str]]:
        """As an endpoint wants them; `again`: with the reminder."""
        user = f"{self.user}\n\n{self.reminder}" if again and self.reminder else self.user
        if not system_role:
            return [{"role": "user", "content": f"{self.system}\n\n{user}"}]
        return [{"role": "system", "content": self.system}, {"role": "user", "content": user}]

    def text(self, again: bool = False) -> str:
        """All that is said, whole."""
        return self.messages(again, system_role=False)[0]["content"]


@dataclass(frozen=True)
class Reply:
    """How one conversation ended, and what it took; numbers are sums over its attempts."""

    text: str
    """Text of the last attempt, cut to the chat's limit; '' if no reply came."""
    read: bool
    """Whether it came whole and the asker could read it."""
    failure: str
    """Why no reply came; '' where one did."""
    prompt: str
    """All that was said in the last attempt."""
    model: str
    """As the endpoint names it; '' where it names none."""
    attempts: int
    seconds: float
    prompt_tokens: int | None
    """None where the endpoint counts none."""
    completion_tokens: int | None
    cost: float | None
    """None: no prices were given.  A reply without token counts costs the most that it can have."""
    time: str
    """When it ended: UTC, ISO 8601."""
    trouble: str = ""
    """Why the last reply was not read; '' where it was, or none came."""


Keep = Callable[[int, Reply], None]
"""Told of every reply as soon as it is there: (number of the conversation, reply)."""
Readable = Callable[[int, str], bool]
"""Whether a reply's text can be read: (number of the conversation, text)."""


def as_data(value: object) -> str:
    """A value as JSON on one line, in which no tag, mark or line break can be made up."""
    text = json.dumps(value, ensure_ascii=False)
    for character in "<>\x7f\x85\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    # Half a surrogate pair is no text: it cannot be sent unless escaped.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


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


@dataclass
class Spending:
    """Counts calls and tokens, and says whether one more call fits the budget.

    1. Before a call its greatest possible number of tokens is reserved: every byte of the prompt a token, and
       the whole reply that was allowed.  It starts only if all that was spent, is reserved and comes on top
       fits the budget, so that calls in flight together cannot pass it.
    2. When the reply is there, what was reserved gives way to what the endpoint counted.  Tokens are counted
       in whole numbers and money follows from their sums, so no rounding adds up.

    A call is one reply asked for.  The client's own retries of refused requests (429, 5xx, no connection)
    belong to the call: they bring no reply, and endpoints bill none.  A reply without token counts, and
    one that did not arrive in time, counts as all that was reserved for it; where the client repeated a
    request after a time-out it counts once, and an endpoint that bills what nobody read may count more.
    """

    prices: Prices | None = None
    max_calls: int | None = None
    max_cost: float | None = None
    calls: int = 0
    tokens: Tokens = Tokens()
    reserved: Tokens = Tokens()
    in_flight: int = 0

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
        return self.prices.of(self.tokens + self.reserved + most) <= self.max_cost

    def start(self, most: Tokens) -> None:
        """Count a call that starts, and reserve its tokens."""
        self.calls += 1
        self.in_flight += 1
        self.reserved += most

    def end(self, most: Tokens, used: Tokens) -> None:
        """Put what a call used in place of what was reserved for it."""
        self.in_flight -= 1
        self.reserved -= most
        self.tokens += used

    def used_up(self) -> BudgetError:
        """Which budget it is that has nothing left."""
        if self.may_call():
            budget = f"{self.max_cost:g}"
            found = f"{self.cost:g} spent, which leaves too little for one more call"
        else:
            budget, found = plural(self.max_calls or 0, "call"), f"all {self.calls:,} made"
        return BudgetError(
            f"expected a budget of more than {budget}, got {found}; what was answered is kept: raise the "
            "budget and run the same command again to go on"
        )


OPENAI = "https://api.openai.com/v1"
KEY_VARIABLE = "OPENAI_API_KEY"
NO_KEY = "none"
"""Sent if there is no key: a server of one's own asks for none, and the client insists on one."""


@dataclass(frozen=True)
class Endpoint(Config):
    """A model behind an endpoint, and the limits of asking it.

    Raises UsageError for impossible settings.
    """

    model: str
    base_url: str = setting(
        OPENAI,
        "Endpoint that speaks OpenAI's protocol, up to and including /v1, e.g. http://localhost:8000/v1; "
        "without a user name, a password or a query.",
    )
    key_variable: str = setting(
        KEY_VARIABLE, "Environment variable that holds the API key; never the key itself."
    )
    concurrency: int = setting(16, "Calls at the same time.", least=1)
    timeout: float = setting(60.0, "Seconds for a reply to begin, and as many again for it to end.")
    retries: int = setting(
        4,
        "Retries, with growing pauses, of a request that is refused for a while (429, 5xx) or does not get "
        "through.",
        least=0,
        flag=False,
    )
    prices: Prices | None = None
    max_calls: int | None = setting(None, "Limit on the number of calls.", unset="none", least=0)
    max_cost: float | None = setting(
        None, "Limit on the cost; needs both prices.", unset="none", least=0
    )
    max_tokens: int = setting(
        500, "Tokens of one reply; a model that reasons first needs a few thousand.", least=1
    )
    max_reply_characters: int = setting(
        20_000, "Characters of one reply; no more is read or kept.", least=1, flag=False
    )
    temperature: float | None = 0.0
    """None leaves it to the endpoint, as does an endpoint that refuses every value."""
    stream: bool = setting(False, "Stream replies, so that an endless one can be cut off.")
    spent: Spending = field(init=False, repr=False, compare=False)
    """Calls, tokens and money so far."""
    refused: set[str] = field(init=False, repr=False, compare=False, default_factory=set)
    """Parameters that this endpoint was found not to know; they are left out from then on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            parts = urlsplit(self.base_url)
            plain = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
            secret = parts.username or parts.password or parts.query or parts.fragment
        except ValueError:
            plain, secret = False, False
        wrong = ""
        # What may be a key is not repeated.
        if secret:
            wrong = (
                "a base URL without a user name, a password or a query, got one with; put the key into an "
                "environment variable and give that variable's name"
            )
        elif not plain:
            wrong = (
                "a base URL such as http://localhost:8000/v1, got one without http(s):// or a host"
            )
        elif not self.timeout > 0:
            wrong = f"a timeout of more than 0 seconds, got {self.timeout}"
        elif not self.model.strip():
            wrong = "the name of a model, got an empty one; try gpt-4o-mini"
        elif not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.key_variable):
            wrong = (
                "the name of an environment variable that holds the API key, got some other text; try "
                f"{KEY_VARIABLE}"
            )
        elif self.max_cost is not None and self.prices is None:
            wrong = (
                "prices per million tokens for a budget in money, got none; give both prices, or a budget "
                "in calls"
            )
        if wrong:
            raise UsageError(f"expected {wrong}")
        object.__setattr__(self, "spent", Spending(self.prices, self.max_calls, self.max_cost))

    @property
    def endpoint(self) -> str:
        """The base URL, for messages."""
        return self.base_url.rstrip("/")

    @property
    def host(self) -> str:
        """The endpoint's host alone."""
        return urlsplit(self.base_url).hostname or ""

    def key(self) -> str:
        """The API key.

        Raises UsageError where it cannot be one, or there is none and the endpoint is OpenAI's own.
        """
        found = os.environ.get(self.key_variable, "").strip()
        if not re.fullmatch(r"[!-~]*", found):
            # Such a key fits no HTTP header, and errors of those who try repeat it.
            raise UsageError(
                f"expected an API key of printable ASCII characters in {self.key_variable}, got other "
                "characters; copy the key again"
            )
        if not found and self.host == urlsplit(OPENAI).hostname:
            raise UsageError(
                f"expected an API key for {self.endpoint} in the environment variable "
                f"{self.key_variable}, got none; try: export {self.key_variable}=..., or the base "
                "URL of another endpoint"
            )
        return found or NO_KEY
