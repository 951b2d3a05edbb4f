"""An OpenAI-compatible endpoint: where it is, how to ask it and how much, and what it was found not to know.

The API key comes from the environment alone, and no message, log, file or identity ever holds it: what
an endpoint sends back is searched for it, and the client's own errors, which hold the request with its
key, are never passed on.
"""

import os
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from saematch.errors import UsageError
from saematch.semantics.chat.spending import Prices, Spending

OPENAI = "https://api.openai.com/v1"
KEY_VARIABLE = "OPENAI_API_KEY"
NO_KEY = "none"
"""Sent where there is no key: a server of one's own asks for none, and the client insists on one."""


@dataclass(frozen=True)
class Endpoint:
    """A model behind an endpoint, and the limits of asking it.

    Raises UsageError for settings that cannot be.
    """

    model: str
    base_url: str = OPENAI
    """Up to and with `/v1`; without a user name, a password or a query."""
    key_variable: str = KEY_VARIABLE
    """The NAME of the environment variable that holds the API key."""
    concurrency: int = 16
    """Calls under way at once, at most."""
    timeout: float = 60.0
    """Seconds for a reply to begin, and as many again for it to be complete."""
    retries: int = 4
    """Of a request that is refused for a while (429, 5xx) or does not get through, with growing pauses."""
    prices: Prices | None = None
    max_calls: int | None = None
    """A budget, for as long as this object lives."""
    max_cost: float | None = None
    """The same in money; needs `prices`."""
    max_tokens: int = 500
    """Of one reply; a model that thinks before it answers needs some thousands."""
    max_reply_characters: int = 20_000
    """Of a reply, no more is read or kept."""
    temperature: float | None = 0.0
    """None leaves it to the endpoint, as does an endpoint that refuses every value."""
    stream: bool = False
    """Let replies come in pieces, so that an endless one can be left early."""
    spent: Spending = field(init=False, repr=False, compare=False)
    """Calls, tokens and money so far."""
    refused: set[str] = field(init=False, repr=False, compare=False, default_factory=set)
    """Parameters that this endpoint was found not to know; they are left out from then on."""

    def __post_init__(self) -> None:
        _check_url(self.base_url)
        for name in ("concurrency", "max_tokens", "max_reply_characters"):
            if getattr(self, name) < 1:
                raise UsageError(f"expected {name} of 1 or more, got {getattr(self, name)}")
        for name in ("retries", "max_calls", "max_cost"):
            if (getattr(self, name) or 0) < 0:
                raise UsageError(f"expected {name} of 0 or more, got {getattr(self, name)}")
        if not self.timeout > 0:
            raise UsageError(f"expected a timeout of more than 0 seconds, got {self.timeout}")
        if not self.model.strip():
            raise UsageError("expected the name of a model, got an empty one; try gpt-4o-mini")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.key_variable):
            # What was found is not repeated: it may be the key itself.
            raise UsageError(
                "expected the name of an environment variable that holds the API key, got some other "
                f"text; try {KEY_VARIABLE}"
            )
        if self.max_cost is not None and self.prices is None:
            raise UsageError(
                "expected prices per million tokens for a budget in money, got none; "
                "give both prices, or a budget in calls"
            )
        spent = Spending(self.prices, self.max_calls, self.max_cost)
        object.__setattr__(self, "spent", spent)

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


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        plain = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
        secret = parts.username or parts.password or parts.query or parts.fragment
    except ValueError:
        plain, secret = False, False
    if secret:
        # Not repeated: what stands there is often a key.
        raise UsageError(
            "expected a base URL without a user name, a password or a query, got one with; "
            "put the key into an environment variable and give that variable's name"
        )
    if not plain:
        raise UsageError(
            "expected a base URL such as http://localhost:8000/v1, got one without http(s):// or a host"
        )
