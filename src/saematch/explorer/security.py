"""What every request passes and every reply carries, whatever the page does.

1. Only GET and HEAD; anything else would change something, and there is nothing to change.
2. Only a Host header of this machine: a name of somebody's own that points at 127.0.0.1 would make
   their page and ours one origin (DNS rebinding).
3. No reply is read by another site, framed, guessed to be of another type, or runs a script that is not
   ours.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
NAMES = ("127.0.0.1", "localhost", "[::1]")
MOST_QUERY_BYTES = 8192


class Guard:
    """An ASGI application around another."""

    def __init__(self, application: Application, port: int) -> None:
        """`port`: the one that is served, which a Host header must name."""
        self._application = application
        self._hosts = {f"{name}:{port}" for name in NAMES}
        if port == 80:
            self._hosts |= set(NAMES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # a websocket, which is left without an answer

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                names = {name.encode() for name in HEADERS}
                kept = [(name, value) for name, value in message["headers"] if name not in names]
                ours = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*kept, *ours]}
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            await self._application(scope, receive, guarded)
            return
        status, text = refusal
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        if status == 405:
            headers.append((b"allow", b"GET, HEAD"))
        await guarded({"type": "http.response.start", "status": status, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else text.encode()
        await guarded({"type": "http.response.body", "body": body})

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        hosts = [
            value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"host"
        ]
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            found = hosts[0][:80] if hosts else "none"
            return 421, f"expected the Host header of this machine, got {found}\n"
        if scope["method"] not in ("GET", "HEAD"):
            return 405, f"expected GET or HEAD, got {scope['method'][:20]}\n"
        if len(scope["query_string"]) > MOST_QUERY_BYTES:
            return 414, f"expected an address of at most {MOST_QUERY_BYTES} bytes\n"
        return None
