"""Asking a language model: budget, concurrency, failures, the key."""

import asyncio
import contextlib
import json
import logging
import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from scripted_server import (
    COMPLETION_TOKENS,
    PROMPT_TOKENS,
    SOON,
    Asked,
    Say,
    serving,
)

from saematch.errors import MissingDependencyError, SaematchError, UsageError
from saematch.semantics.chat.chat import FAILURES_IN_A_ROW, Chat
from saematch.semantics.chat.endpoint import BudgetError, Conversation, Prices, Reply, most_tokens

KEY = "sk-test-0123456789abcdefghij"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def conversations(count: int) -> list[Conversation]:
    return [
        Conversation("Be brief.", f"Question {n}?", "The answer before was none.")
        for n in range(count)
    ]


def ask(chat: Chat, count: int = 1, **more: Any) -> dict[int, Reply]:
    kept: dict[int, Reply] = {}

    def keep(number: int, reply: Reply) -> None:
        assert number not in kept
        kept[number] = reply

    chat.ask(conversations(count), keep, **more)
    return kept


def first_user_words(asked: Asked) -> int:
    return int(asked.user.split()[1].rstrip("?"))


@pytest.fixture(params=[False, True], ids=["plain", "stream"])
def stream(request: pytest.FixtureRequest) -> bool:
    return request.param


def test_a_reply_holds_all_that_is_known_of_it(stream: bool) -> None:
    with serving(lambda _: Say("Yes.")) as server:
        chat = Chat("some/model", server.url, stream=stream, prices=Prices(2.0, 10.0))
        (reply,) = ask(chat).values()
    assert (reply.text, reply.read, reply.failure, reply.attempts) == ("Yes.", True, "", 1)
    assert reply.model == "some/model-2024"
    assert (reply.prompt_tokens, reply.completion_tokens) == (PROMPT_TOKENS, COMPLETION_TOKENS)
    assert reply.cost == (PROMPT_TOKENS * 2 + COMPLETION_TOKENS * 10) / 1e6 == chat.spent.cost
    assert reply.prompt == "Be brief.\n\nQuestion 0?"
    assert reply.seconds > 0
    assert reply.time.endswith("+00:00")
    (asked,) = server.asked
    assert asked.body["temperature"] == 0.0
    assert asked.body["max_tokens"] == chat.max_tokens
    assert asked.key == f"Bearer {KEY}"
    assert [message["role"] for message in asked.body["messages"]] == ["system", "user"]


def test_all_are_asked_once_and_never_more_at_once_than_allowed(stream: bool) -> None:
    with serving(lambda asked: Say(asked.user, delay=0.02)) as server:
        chat = Chat("m", server.url, concurrency=7, stream=stream)
        kept = ask(chat, 60)
    assert {n: reply.text for n, reply in kept.items()} == {n: f"Question {n}?" for n in range(60)}
    assert sorted(map(first_user_words, server.asked)) == list(range(60))
    assert 2 <= server.most_under_way <= 7
    assert chat.spent.calls == 60
    assert chat.spent.tokens.prompt == 60 * PROMPT_TOKENS
    assert chat.spent.in_flight == 0


def test_nothing_to_ask_needs_no_endpoint_and_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    assert ask(Chat("m"), 0) == {}


# Failures


@pytest.mark.parametrize("status", [429, 500, 503, 408])
def test_refusals_for_a_while_are_waited_out(status: int) -> None:
    def script(asked: Asked) -> Say:
        return Say("Yes.") if asked.times == 3 else Say(status=status, headers=SOON)

    with serving(script) as server:
        chat = Chat("m", server.url, retries=3, max_calls=5)
        kept = ask(chat, 5)
    assert all(reply.text == "Yes." and reply.attempts == 1 for reply in kept.values())
    assert len(server.asked) == 15
    assert chat.spent.calls == 5
    assert chat.spent.tokens.prompt == 5 * PROMPT_TOKENS


def test_retry_after_is_obeyed() -> None:
    def script(asked: Asked) -> Say:
        return Say("Yes.") if asked.times == 2 else Say(status=429, headers={"retry-after": "1"})

    with serving(script) as server:
        (reply,) = ask(Chat("m", server.url)).values()
    assert reply.text == "Yes."
    assert reply.seconds >= 1


def test_a_request_that_goes_on_failing_is_one_failure() -> None:
    def script(asked: Asked) -> Say:
        return Say(status=500, headers=SOON) if "Question 3?" in asked.user else Say("Yes.")

    with serving(script) as server:
        chat = Chat("m", server.url, retries=2, prices=Prices(1.0, 1.0))
        kept = ask(chat, 8, attempts=3)
    assert kept[3].failure.startswith("refused with 500: ")
    assert (kept[3].text, kept[3].read, kept[3].attempts, kept[3].cost) == ("", False, 1, 0.0)
    assert all(reply.read for number, reply in kept.items() if number != 3)
    assert chat.spent.calls == 8


def test_a_reply_that_does_not_come_in_time_is_a_failure() -> None:
    with serving(lambda _: Say("Yes.", delay=5)) as server:
        chat = Chat("m", server.url, timeout=0.2, retries=0, prices=Prices(1.0, 1.0))
        (reply,) = ask(chat, attempts=2).values()
    assert "0.2 s" in reply.failure
    assert reply.attempts == 2
    # It may have been written and be billed: the budget counts the most that it can be.
    most = most_tokens(conversations(1)[0].text(), "") + chat.max_tokens
    assert reply.cost == chat.spent.cost == 2 * most / 1e6


@pytest.mark.parametrize(
    "broken",
    [
        Say("Yes.", breaks_off=True),
        Say(raw=b'{"choices": [{"mess'),
        Say(raw=b"<html>sign in</html>"),
        Say(raw=b'{"choices": []}'),
        Say(raw=b'{"error": {"message": "overloaded"}}'),
        Say(raw=b"[" * 50_000),
        Say(raw=b""),
    ],
)
def test_a_body_that_is_no_reply_is_asked_for_again(broken: Say) -> None:
    with serving(lambda asked: Say("Yes.") if asked.times > 1 else broken) as server:
        (reply,) = ask(Chat("m", server.url), attempts=2).values()
        assert (reply.text, reply.read, reply.attempts) == ("Yes.", True, 2)
        (reply,) = ask(Chat("m", server.url.replace("/v1", "")), attempts=1).values()
        assert reply.text == "Yes."
    with serving(lambda _: broken) as server:
        (reply,) = ask(Chat("m", server.url), attempts=2).values()
    assert reply.failure
    assert not reply.read
    assert reply.attempts == 2


def test_an_endpoint_that_stops_answering_ends_it() -> None:
    with serving(lambda _: Say(status=500)) as server:
        chat = Chat("m", server.url, concurrency=4, retries=0)
        kept: dict[int, Reply] = {}
        with pytest.raises(SaematchError, match="failures in a row, the last: refused with 500"):
            chat.ask(conversations(100), kept.__setitem__)
    assert FAILURES_IN_A_ROW <= len(kept) < FAILURES_IN_A_ROW + 4
    assert len(server.asked) < FAILURES_IN_A_ROW + 8


def test_nobody_there() -> None:
    with serving(lambda _: Say()) as server:
        pass
    (reply,) = ask(Chat("m", server.url, retries=0)).values()
    assert reply.failure.startswith("no connection to http://127.0.0.1")


@pytest.mark.parametrize(
    ("status", "error", "kind", "match"),
    [
        (401, f"Incorrect API key provided: {KEY[:6]}***", UsageError, "OPENAI_API_KEY"),
        (403, "no", UsageError, "OPENAI_API_KEY"),
        (404, "The model `m` does not exist", UsageError, "there is no model 'm'"),
        (402, "pay", SaematchError, "credit"),
        (429, "You exceeded your quota: insufficient_quota", SaematchError, "credit"),
    ],
)
def test_what_makes_going_on_senseless_ends_it_at_once(
    status: int, error: str, kind: type[SaematchError], match: str
) -> None:
    def script(asked: Asked) -> Say:
        if first_user_words(asked) < 5:
            return Say("Yes.")
        return Say(status=status, error=error, headers={"x-should-retry": "false"}, delay=0.6)

    with serving(script) as server:
        kept: dict[int, Reply] = {}
        with pytest.raises(kind, match=match) as raised:
            Chat("m", server.url, concurrency=5).ask(conversations(1000), kept.__setitem__)
    assert sorted(kept) == [0, 1, 2, 3, 4]
    assert all(reply.text == "Yes." for reply in kept.values())
    assert len(server.asked) <= 10
    assert KEY[:6] not in str(raised.value)


# Attempts


def test_what_cannot_be_read_is_asked_again_with_a_reminder() -> None:
    with serving(lambda asked: Say(f"reply {asked.times}")) as server:
        chat = Chat("m", server.url, prices=Prices(1.0, 1.0))
        (reply,) = ask(chat, readable=lambda _, text: text == "reply 3", attempts=5).values()
    assert (reply.text, reply.read, reply.attempts) == ("reply 3", True, 3)
    assert reply.prompt_tokens == 3 * PROMPT_TOKENS
    assert reply.completion_tokens == 3 * COMPLETION_TOKENS
    assert reply.cost == chat.spent.cost
    assert reply.prompt == "Be brief.\n\nQuestion 0?\n\nThe answer before was none."
    assert [asked.user.endswith("The answer before was none.") for asked in server.asked] == [
        False,
        True,
        True,
    ]


def test_what_can_never_be_read_is_kept_as_it_came() -> None:
    with serving(lambda _: Say("?")) as server:
        (reply,) = ask(Chat("m", server.url), readable=lambda *_: False, attempts=3).values()
    assert (reply.text, reply.read, reply.failure, reply.attempts) == ("?", False, "", 3)
    assert len(server.asked) == 3


@pytest.mark.parametrize("finish", ["stop", "length"])
def test_a_reply_cut_by_its_endpoint_is_not_whole(stream: bool, finish: str) -> None:
    with serving(lambda _: Say("Yes.", finish=finish)) as server:
        (reply,) = ask(Chat("m", server.url, stream=stream)).values()
    assert reply.text == "Yes."
    assert reply.read is (finish == "stop")


def test_a_reply_of_10_mb_is_cut(stream: bool) -> None:
    with serving(lambda _: Say("Yes. " * 2_000_000)) as server:
        (reply,) = ask(Chat("m", server.url, stream=stream)).values()
    assert len(reply.text) <= 20_000
    assert not reply.read
    assert not reply.failure


def test_a_line_of_10_mb_in_a_stream_is_cut() -> None:
    raw = b'data: {"choices": [{"delta": {"content": "' + b"x" * 10_000_000
    events = {"content-type": "text/event-stream"}
    with serving(lambda _: Say(raw=raw, headers=events)) as server:
        (reply,) = ask(Chat("m", server.url, stream=True)).values()
    assert not reply.read


def test_an_endless_reply_is_left() -> None:
    with serving(lambda _: Say("on and on ", endless=True)) as server:
        (reply,) = ask(Chat("m", server.url, stream=True, max_reply_characters=500)).values()
        deadline = time.monotonic() + 20
        while not server.left and time.monotonic() < deadline:
            time.sleep(0.01)
    assert reply.text == ("on and on " * 50)
    assert not reply.read
    assert server.left == 1


# Parameters that an endpoint does not know

SCHEMA = {"type": "object"}


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize(
    "error",
    [
        "Unexpected fields in the request: {'response_format'}",
        "json_schema is not available",
        "unknown field",
    ],
)
@pytest.mark.parametrize(
    "form",
    [
        {"error": {"message": "SAID"}},
        {"detail": "SAID"},
        {"detail": [{"msg": "SAID"}]},
        "SAID",
        ["SAID"],
    ],
)
def test_an_endpoint_without_structured_output_is_asked_without(
    status: int, error: str, form: Any
) -> None:
    def script(asked: Asked) -> Say:
        refusal = Say(status=status, error=error, error_form=form)
        return refusal if asked.structured else Say("Yes.")

    with serving(script) as server:
        chat = Chat("m", server.url, concurrency=3, max_calls=20)
        kept = ask(chat, 20, schema=SCHEMA)
    assert all(reply.text == "Yes." and reply.attempts == 1 for reply in kept.values())
    assert sum(asked.structured for asked in server.asked) <= 6
    assert "response_format" in chat.refused
    assert chat.spent.calls == 20


def test_structured_output_is_asked_for_where_it_is_known() -> None:
    with serving(lambda asked: Say(json.dumps(asked.body["response_format"]))) as server:
        (reply,) = ask(Chat("m", server.url), schema=SCHEMA).values()
    assert json.loads(reply.text)["json_schema"]["schema"] == SCHEMA


def test_each_unknown_parameter_is_said_otherwise() -> None:
    def script(asked: Asked) -> Say:
        body = asked.body
        for name in ("max_tokens", "stream_options", "response_format"):
            if name in body:
                return Say(status=400, error=f"Unsupported parameter: '{name}'")
        if body["messages"][0]["role"] == "system":
            return Say(status=400, error="System role not supported")
        return Say(f"{body['max_completion_tokens']} {body['messages'][0]['content']}")

    with serving(script) as server:
        (reply,) = ask(Chat("m", server.url, stream=True), schema=SCHEMA).values()
    assert reply.text == "500 Be brief.\n\nQuestion 0?"


def test_an_endpoint_that_refuses_whatever_is_sent_is_not_asked_for_ever() -> None:
    error = "unknown: response_format, stream_options, max_tokens, system role"
    with serving(lambda _: Say(status=400, error=error)) as server:
        (reply,) = ask(Chat("m", server.url, stream=True), schema=SCHEMA).values()
    assert reply.failure.startswith("refused with 400")
    assert len(server.asked) <= 5


# Budget


@pytest.mark.parametrize("concurrency", [1, 7, 64])
def test_a_budget_of_calls_is_never_passed(concurrency: int) -> None:
    def script(asked: Asked) -> Say:
        if asked.times == 1 and first_user_words(asked) % 3 == 0:
            return Say(status=429, headers=SOON)
        return Say("Yes." if asked.times > 1 else "?", delay=0.01)

    with serving(script) as server:
        chat = Chat("m", server.url, concurrency=concurrency, max_calls=25)
        kept: dict[int, Reply] = {}
        with pytest.raises(BudgetError, match="more than 25 calls"):
            chat.ask(
                conversations(40), kept.__setitem__, lambda _, text: text == "Yes.", attempts=2
            )
        assert len(server.answered) == chat.spent.calls == 25
        assert chat.spent.tokens.prompt == 25 * PROMPT_TOKENS
        assert all(reply.read for reply in kept.values())
        with pytest.raises(BudgetError):
            chat.ask(conversations(1), kept.__setitem__)
        assert len(server.answered) == 25


def test_a_budget_that_is_just_enough_is_enough() -> None:
    with serving(lambda _: Say("Yes.")) as server:
        assert len(ask(Chat("m", server.url, max_calls=30, concurrency=8), 30)) == 30


@pytest.mark.parametrize("usage", [True, False])
def test_a_budget_of_money_is_never_passed(usage: bool) -> None:
    prices = Prices(prompt=100.0, completion=400.0)
    most = prices.of(most_bound())
    with serving(lambda _: Say("Yes.", delay=0.01, usage=usage)) as server:
        chat = Chat("m", server.url, 
                    concurrency=16, prices=prices, max_cost=20.5 * most, max_tokens=1000)  # fmt: skip
        kept: dict[int, Reply] = {}
        with pytest.raises(BudgetError, match="too little for one more call"):
            chat.ask(conversations(500), kept.__setitem__)
    assert chat.spent.cost is not None
    assert 20.5 * most - most < chat.spent.cost <= 20.5 * most
    assert sum(reply.cost or 0 for reply in kept.values()) == pytest.approx(chat.spent.cost)
    assert len(kept) == len(server.answered) == chat.spent.calls
    if not usage:
        assert len(kept) == 20
        assert all(reply.prompt_tokens is None for reply in kept.values())


def most_bound() -> Any:
    from saematch.semantics.chat.endpoint import Tokens

    return Tokens(most_tokens("Be brief.\n\nQuestion 100?", ""), 1000)


def test_estimates() -> None:
    chat = Chat("m", "http://localhost/v1", prices=Prices(1.0, 2.0))
    some = conversations(10)
    estimate = chat.estimate(some, reply_tokens=50)
    assert estimate.calls == 10
    assert estimate.completion_tokens == 500
    characters = sum(len(one.text()) for one in some)
    assert characters / 4 <= estimate.prompt_tokens <= characters / 4 + 10
    assert estimate.cost == (estimate.prompt_tokens + 2 * 500) / 1e6
    assert Chat("m", "http://localhost/v1").estimate(some).cost is None


# Interrupts


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell that starts something in the background has it ignore SIGINT; here it must be heard."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_keeps_what_came_and_leaves_nothing_running() -> None:
    def script(asked: Asked) -> Say:
        return Say("Yes.", delay=0 if first_user_words(asked) < 10 else 30)

    kept: dict[int, Reply] = {}
    with serving(script) as server:
        chat = Chat("m", server.url, concurrency=4)

        def interrupt() -> None:
            while len(kept) < 10 or server.under_way < 4:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt, daemon=True)
        thread.start()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            chat.ask(conversations(100), kept.__setitem__)
        thread.join()
        assert time.monotonic() - began < 20
        assert sorted(kept) == list(range(10))
        assert chat.spent.in_flight == 0
        assert chat.spent.calls == 14
        # The same chat goes on with the rest, and asks nothing twice.
        server.script = lambda _: Say("Yes.")
        rest = [n for n in range(20) if n not in kept]
        chat.ask(
            [conversations(20)[n] for n in rest],
            lambda number, reply: kept.__setitem__(rest[number], reply),
        )
    assert sorted(kept) == list(range(20))
    assert len(server.answered) == 20


def test_an_error_of_the_keeper_ends_it() -> None:
    def keep(number: int, reply: Reply) -> None:
        raise OSError("disk full")

    with serving(lambda _: Say("Yes.")) as server, pytest.raises(OSError, match="disk full"):
        Chat("m", server.url, concurrency=2).ask(conversations(50), keep)
    assert len(server.asked) <= 3


def test_inside_a_running_loop_as_in_a_notebook() -> None:
    async def cell() -> dict[int, Reply]:
        return ask(Chat("m", server.url), 3)

    with serving(lambda _: Say("Yes.")) as server:
        assert len(asyncio.run(cell())) == 3
    with serving(lambda _: Say(status=401)) as server, pytest.raises(UsageError):
        asyncio.run(cell())


# The key


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG):
        for name in ("openai", "httpx", "httpcore", "httpx2", "httpcore2", "asyncio"):
            caplog.set_level(logging.DEBUG, name)
        yield caplog


@pytest.mark.parametrize(
    "say",
    [
        Say(f"Your key is {KEY}."),
        Say(status=401, error=f"bad key {KEY}"),
        Say(status=404, error=f"no model for {KEY}"),
        Say(status=402, error=f"no money, {KEY}"),
        Say(status=400, error=f"bad request of {KEY}"),
        Say(status=500, error=f"crashed on {KEY}"),
        Say(raw=f"not JSON: {KEY}".encode()),
        Say(raw=json.dumps({"error": f"refused {KEY}"}).encode()),
        Say("Yes.", breaks_off=True),
        Say("Yes.", delay=2),
    ],
)
def test_the_key_is_nowhere(
    say: Say, everything_logged: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    produced: list[str] = []
    with serving(lambda _: say) as server:
        chat = Chat("m", server.url, retries=0, timeout=0.5, concurrency=2)
        try:
            ask(chat, 12)
        except SaematchError as error:
            linked: BaseException | None = error
            while linked is not None:  # whatever a traceback would print
                produced += [str(linked), repr(linked), repr(vars(linked))]
                linked = linked.__cause__ or linked.__context__
        kept: list[str] = []
        with contextlib.suppress(SaematchError):
            chat.ask(conversations(1), lambda _, reply: kept.append(repr(reply)))
        assert server.asked[0].key == f"Bearer {KEY}"
    produced += [*kept, repr(chat), chat.endpoint, everything_logged.text]
    produced += [str(vars(record)) for record in everything_logged.records]
    produced += [str(pickle.dumps(chat)), *capfd.readouterr()]
    assert not [text for text in produced if KEY in text or KEY[8:20] in text]


def test_the_key_of_another_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_KEY", "another-secret")
    with serving(lambda _: Say("Yes.")) as server:
        ask(Chat("m", server.url, key_variable="OTHER_KEY"))
        monkeypatch.delenv("OTHER_KEY")
        ask(Chat("m", server.url, key_variable="OTHER_KEY"))
    assert [asked.key for asked in server.asked] == ["Bearer another-secret", "Bearer none"]


@pytest.mark.parametrize("key", ["sk-tést-0123456789", "sk-test\n0123456789", "sk-test 0123456789"])
def test_a_key_that_cannot_be_one_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(UsageError, match="OPENAI_API_KEY") as raised:
        ask(Chat("m", "http://127.0.0.1:1/v1"))
    assert "0123456789" not in str(raised.value)


def test_openai_itself_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UsageError, match="environment variable OPENAI_API_KEY, got none"):
        ask(Chat("gpt-4o-mini"))


# Settings


@pytest.mark.parametrize(
    "settings",
    [
        {"concurrency": 0},
        {"timeout": 0.0},
        {"retries": -1},
        {"max_calls": -1},
        {"max_cost": 1.0},
        {"max_tokens": 0},
        {"model": " "},
        {"base_url": "localhost:8000"},
        {"base_url": "ftp://host/v1"},
        {"base_url": "http://host:port/v1"},
        {"base_url": "http://[::1/v1"},
        {"base_url": f"http://user:{KEY}@host/v1"},
        {"base_url": f"http://host/v1?key={KEY}"},
        {"key_variable": KEY},
        {"key_variable": ""},
    ],
)
def test_settings_that_cannot_be_are_refused_and_not_repeated(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as raised:
        Chat(**{"model": "m", **settings})
    assert KEY not in str(raised.value)
    assert "expected" in str(raised.value)


@pytest.mark.parametrize("price", [-1.0, float("nan"), float("inf")])
def test_prices_that_are_none_are_refused(price: float) -> None:
    with pytest.raises(UsageError):
        Prices(price, 1.0)


def test_without_the_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingDependencyError, match=r"saematch\[judge\]"):
        ask(Chat("m", "http://localhost:1/v1"))


def test_the_client_is_not_imported_before_it_is_needed() -> None:
    import subprocess
    import sys

    code = (
        "import sys, saematch.semantics.judges.llm, saematch.semantics.explaining; "
        "print('openai' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
