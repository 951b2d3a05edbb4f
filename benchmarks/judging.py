"""What judging by a language model costs, compared with its bound: latency × calls ÷ concurrency.

python benchmarks/judging.py --calls 1600 --latency 0.2 --concurrency 32

A server in a process of its own answers every call after the same pause.  Prints a line of JSON: `ratio`
is the time taken over the bound, `cpu_ms` what one call costs this process.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time

from saematch.semantics.chat.chat import Chat
from saematch.semantics.judges.judge import Judgement, Label, Question
from saematch.semantics.judges.llm import LLMJudge

REPLY = json.dumps(
    {
        "model": "scripted",
        "choices": [
            {
                "message": {"content": '{"reason": "Scripted.", "label": "SAME"}'},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 450, "completion_tokens": 15},
    }
).encode()


async def serve(latency: float) -> None:
    """Answer every POST after `latency` seconds; print the port, and end with the parent."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        try:
            while True:
                fields = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = fields.partition(b"content-length:")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length))
                await asyncio.sleep(latency)
                writer.write(head % len(REPLY) + REPLY)
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1600)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.latency))
        return
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", "--latency", str(arguments.latency)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with server:
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
            print(json.dumps(measure(url, arguments)))
        finally:
            server.kill()


def measure(url: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Judge all questions and say how long it took."""
    chat = Chat("scripted", url, concurrency=arguments.concurrency, stream=arguments.stream)
    judge = LLMJudge(chat)
    judge.judge([Question("warm", "up")], lambda *_: None)  # imports the client
    questions = [Question(f"feature {n}", f"another {n}") for n in range(arguments.calls)]
    kept: dict[int, Judgement] = {}
    started, cpu = time.perf_counter(), time.process_time()
    judge.judge(questions, kept.__setitem__)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    assert len(kept) == arguments.calls, len(kept)
    assert all(judgement.label is Label.SAME for judgement in kept.values())
    bound = arguments.latency * arguments.calls / arguments.concurrency
    return {
        "calls": arguments.calls,
        "concurrency": arguments.concurrency,
        "seconds": round(seconds, 2),
        "bound": round(bound, 2),
        "ratio": round(seconds / bound, 3),
        "cpu_ms": round(1000 * cpu / arguments.calls, 2),
    }


if __name__ == "__main__":
    main()
