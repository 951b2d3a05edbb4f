"""Connections that ask nothing are closed: uvicorn alone waits for the end of a request for ever."""

import asyncio
import time
from typing import Any


def impatient_protocol(seconds: float, most: int) -> Any:
    """uvicorn's protocol, which closes a connection that has no whole request after `seconds`, and, where
    there are more than `most`, that which has waited for longest."""
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    protocol: Any = AutoHTTPProtocol  # one of two classes, by what is installed

    class Impatient(protocol):
        waiting: asyncio.TimerHandle | None = None
        since = 0.0

        @property
        def asks(self) -> bool:
            """Whether a request is being answered."""
            return self.cycle is not None and not self.cycle.response_complete

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.wait()
            if len(self.connections) > most:
                silent = [one for one in self.connections if not one.asks]
                min(silent or [self], key=lambda one: one.since).transport.abort()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.asks:
                self.stop_waiting()
            elif self.waiting is None:
                self.wait()  # bytes that come one by one win no time

        def connection_lost(self, exc: Exception | None) -> None:
            self.stop_waiting()
            super().connection_lost(exc)

        def wait(self) -> None:
            self.since = time.monotonic()
            self.waiting = self.loop.call_later(seconds, self.give_up)

        def stop_waiting(self) -> None:
            if self.waiting is not None:
                self.waiting.cancel()
                self.waiting = None

        def give_up(self) -> None:
            self.waiting = None
            if not self.asks and not self.transport.is_closing():
                self.transport.close()

    return Impatient
