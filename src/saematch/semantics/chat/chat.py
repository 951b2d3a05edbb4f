"""Conversations with a language model behind any OpenAI-compatible endpoint.

`endpoint.py` holds the settings and counts what was spent; `asking.py` does the asking.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saematch.errors import UsageError
from saematch.semantics.chat.endpoint import Endpoint
from saematch.semantics.chat.protocol import Conversation, Keep, Readable
from saematch.semantics.chat.spending import Estimate, Tokens, about_tokens

REPLY_TOKENS = 80
"""Tokens of a short reason and a label, about."""


@dataclass(frozen=True)
class Chat(Endpoint):
    """A model behind an endpoint, how to ask it and how much.

    Raises UsageError for impossible settings.
    """

    def ask(
        self,
        conversations: Sequence[Conversation],
        keep: Keep,
        readable: Readable = lambda _number, _text: True,
        attempts: int = 1,
        schema: Mapping[str, Any] | None = None,
    ) -> None:
        """Hold all conversations, telling `keep` of each reply as it comes, in any order.

        `readable`: a reply that is not is asked for again, `attempts` times in all.  `schema`: the JSON
        schema of the reply, for endpoints that can hold a model to one; others are asked without.

        Raises UsageError where the endpoint refuses the key or knows no such model, BudgetError where
        the budget is used up (calls under way are waited for and kept), and SaematchError where the
        endpoint has stopped answering.  What `keep` was told before stands; a conversation that was cut
        short between two attempts is not kept, though it is counted in `spent`.  An interrupt ends the
        calls under way.
        """
        from saematch.semantics.chat.asking import Asking, run_to_end

        if attempts < 1:
            raise UsageError(f"expected attempts of 1 or more, got {attempts}")
        if conversations:
            asking = Asking(self, conversations, keep, readable, attempts, schema)
            run_to_end(asking.run)

    def estimate(
        self, conversations: Sequence[Conversation], reply_tokens: int = REPLY_TOKENS
    ) -> Estimate:
        """What these conversations will take, about, with replies of `reply_tokens` each."""
        prompt = sum(about_tokens(conversation.text()) for conversation in conversations)
        completion = len(conversations) * min(reply_tokens, self.max_tokens)
        cost = None if self.prices is None else self.prices.of(Tokens(prompt, completion))
        return Estimate(len(conversations), prompt, completion, cost)
