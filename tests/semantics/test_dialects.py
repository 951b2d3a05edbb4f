"""Endpoints speak dialects: labels come, or the reason stands in their place, and nothing is paid twice."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from scripted_server import COMPLETION_TOKENS, PROMPT_TOKENS, SOON, Asked, Say, label, serving

from saematch.semantics.chat.chat import Chat
from saematch.semantics.chat.endpoint import Prices
from saematch.semantics.judges.judge import Judgement, Label, Outcome, Question
from saematch.semantics.judges.llm import LLMJudge

QUESTIONS = [Question(f"rivers of Asia {n}", f"lakes of Africa {n}") for n in range(6)]
Script = Callable[[Asked], Say]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789abcdefghij")


def judged(chat: Chat, attempts: int = 3) -> list[Judgement]:
    kept: dict[int, Judgement] = {}
    LLMJudge(chat, attempts).judge(QUESTIONS, kept.__setitem__)
    return [kept[number] for number in range(len(QUESTIONS))]


def refuses(status: int, words: str) -> Say:
    return Say(status=status, error=words, headers=SOON)


def has_system(asked: Asked) -> bool:
    return any(one["role"] == "system" for one in asked.body["messages"])


def form(asked: Asked) -> str:
    return asked.body.get("response_format", {}).get("type", "plain")


NO_SYSTEM = {
    "mistral": (400, "Conversation roles must alternate user/assistant/user/assistant/..."),
    "mistral of transformers": (
        500,
        "After the optional system message, conversation roles must alternate",
    ),
    "gemma": (400, "System role not supported"),
    "template": (400, "Only user and assistant roles are supported!"),
    "gemini": (400, "Developer instruction is not enabled for models/gemma-3-27b-it"),
}
NO_SCHEMA = {
    "groq": (400, "Failed to validate JSON. code: json_validate_failed"),
    "vllm": (500, "guided decoding: the grammar could not be compiled"),
    "name": (400, "json_schema is not supported"),
    "response_format": (400, "response_format not supported"),
    "deepseek": (400, "This response_format type is unavailable now"),
}
OTHER_PARAMETERS = {
    "gpt-5": ("max_tokens", "Unsupported parameter: 'max_tokens' is not supported with this model. "
              "Use 'max_completion_tokens' instead."),
    "o3": ("temperature", "Unsupported value: 'temperature' does not support 0.0 with this model. Only the "
           "default (1) value is supported."),
}  # fmt: skip


def refusal_of(asked: Asked, *dialects: str) -> Say | None:
    for one in dialects:
        if one in NO_SYSTEM and has_system(asked):
            return refuses(*NO_SYSTEM[one])
        if one in NO_SCHEMA and form(asked) == "json_schema":
            return refuses(*NO_SCHEMA[one])
        if one in OTHER_PARAMETERS and OTHER_PARAMETERS[one][0] in asked.body:
            return refuses(400, OTHER_PARAMETERS[one][1])
    return None


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    "dialects",
    [
        *((one,) for one in (*NO_SYSTEM, *NO_SCHEMA, *OTHER_PARAMETERS)),
        ("gemma", "vllm", "gpt-5", "o3"),
        ("mistral", "groq", "o3"),
    ],
    ids="+".join,
)
def test_a_dialect_is_found_once_and_spoken_from_then_on(
    dialects: tuple[str, ...], stream: bool
) -> None:
    def script(asked: Asked) -> Say:
        return refusal_of(asked, *dialects) or label("SAME")

    with serving(script) as server:
        chat = Chat("m", server.url, concurrency=1, stream=stream)
        found = judged(chat)
    assert [one.label for one in found] == [Label.SAME] * len(QUESTIONS)
    assert [one.attempts for one in found] == [1] * len(QUESTIONS)
    assert len(server.asked) == len(QUESTIONS) + len(dialects)
    for asked in server.asked[len(dialects) :]:  # all that is said is said, by whatever role
        told = " ".join(one["content"] for one in asked.body["messages"])
        assert "You compare two features" in told
        assert "rivers of Asia" in told


def test_the_type_json_object_is_tried_before_no_form_at_all() -> None:
    seen: list[str] = []

    def script(asked: Asked) -> Say:
        seen.append(form(asked))
        if form(asked) == "json_schema":
            return refuses(400, "'json_schema' is not supported")
        if form(asked) == "json_object":
            return refuses(400, "response_format json_object is not supported")
        return label("SAME")

    with serving(script) as server:
        found = judged(Chat("m", server.url, concurrency=1))
    assert seen == ["json_schema", "json_object", *["plain"] * len(QUESTIONS)]
    assert {one.label for one in found} == {Label.SAME}


def test_a_reply_that_the_endpoint_threw_away_counts_as_paid() -> None:
    def script(asked: Asked) -> Say:
        return refusal_of(asked, "groq") or label("SAME")

    with serving(script) as server:
        chat = Chat("m", server.url, concurrency=1, prices=Prices(1.0, 1.0))
        found = judged(chat)
    assert chat.spent.calls == len(QUESTIONS) + 1
    told = PROMPT_TOKENS + COMPLETION_TOKENS
    assert chat.spent.tokens.prompt + chat.spent.tokens.completion > len(QUESTIONS) * told
    costs = [one.cost for one in found if one.cost is not None]
    assert sum(costs) == pytest.approx(chat.spent.cost)


def completion(message: dict[str, Any], finish: str = "stop") -> Say:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return Say(raw=json.dumps({"model": "m", "choices": [choice]}).encode())


ANSWER = json.dumps({"reason": "both", "label": "MAYBE"})


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": ANSWER}],
        [{"type": "thinking", "thinking": [{"type": "text", "text": "SAME"}]},
         {"type": "text", "text": ANSWER}],
        [{"type": "text", "text": ANSWER[:9]}, {"type": "text", "text": ANSWER[9:]}],
        [ANSWER],
        f"<think>SAME? Label: SAME</think>{ANSWER}",
    ],
)  # fmt: skip
def test_a_content_in_parts_and_after_thinking_is_read(content: Any) -> None:
    with serving(lambda _: completion({"content": content})) as server:
        found = judged(Chat("m", server.url))
    assert {one.label for one in found} == {Label.MAYBE}


@pytest.mark.parametrize(
    ("say", "reason"),
    [
        (completion({"content": ""}, "length"), "thinking.*--max-tokens"),
        (
            completion({"content": None, "reasoning_content": "SAME"}, "length"),
            "thinking.*max_tokens",
        ),
        (completion({"content": None, "reasoning_content": "Label: SAME"}), "without an answer"),
        (completion({"content": "<think>Label: SAME"}, "length"), "thinking.*max_tokens"),
        (completion({"content": ANSWER[:-9]}, "length"), "cut off.*max_tokens"),
        (completion({"content": None}), "empty reply"),
        (completion({"content": None}, "content_filter"), "filter"),
        (completion({"content": None, "refusal": "I will not."}), "declined: I will not"),
        (completion({"content": None, "tool_calls": [{"id": "1"}]}), "tool"),
        (completion({"content": "no idea"}), "could not be read"),
        (Say(raw=b'{"choices": []}'), "without choices"),
        (Say(raw=b'{"error": {"message": "overloaded \\ud83d\\u001b[2J"}}'), "overloaded"),
        (Say(raw=b"<html>gateway</html>"), "not JSON"),
    ],
)
def test_without_a_label_the_reason_stands_in_its_place(say: Say, reason: str) -> None:
    with serving(lambda _: say) as server:
        found = judged(Chat("m", server.url), attempts=1)
    for one in found:
        assert one.label is None
        assert one.outcome in (Outcome.UNREADABLE, Outcome.FAILED)
        assert re.search(reason, one.reason), one.reason
        one.reason.encode()
        assert "\x1b" not in one.reason


def test_a_stream_of_thinking_says_so() -> None:
    with serving(lambda _: Say("", finish="length")) as server:
        found = judged(Chat("m", server.url, stream=True), attempts=1)
    assert all("thinking" in one.reason and "--max-tokens" in one.reason for one in found)


def test_half_a_character_in_a_reason_is_made_whole_or_replaced() -> None:
    half = Say('{"reason": "half \\ud83d, whole \\ud83d\\ude00", "label": "SAME"}')
    with serving(lambda _: half) as server:
        found = judged(Chat("m", server.url))
    assert {one.reason for one in found} == {"half \ufffd, whole \U0001f600"}
    assert {one.label for one in found} == {Label.SAME}


def test_an_endpoint_that_is_busy_in_a_dialect_is_waited_for() -> None:
    def script(asked: Asked) -> Say:
        if asked.times == 1:
            return Say(status=429, error="slow down", headers=SOON)
        return refusal_of(asked, "gemma") or label("SAME")

    with serving(script) as server:
        found = judged(Chat("m", server.url, concurrency=1))
    assert {one.label for one in found} == {Label.SAME}
