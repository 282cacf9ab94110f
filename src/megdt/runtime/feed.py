"""What happens on a node, told to everybody who watches; who watches slowly misses some of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

WAITING = 64
"""Events that wait for one who watches; beyond that the oldest are left out."""
QUIET_S = 15.0
"""Without an event, until a comment keeps the connection alive."""


class Feed:
    """Server-sent events: told once, to all who watch then."""

    def __init__(self) -> None:
        self._number = 0
        self._watchers: set[asyncio.Queue[str]] = set()

    @property
    def watchers(self) -> int:
        """How many there are."""
        return len(self._watchers)

    def tell(self, event: str, data: Any) -> None:
        """Tell an event; never waits. Called where the event loop runs.

        Args:
            event: Its name.
            data: What JSON carries.
        """
        self._number += 1
        text = f"id: {self._number}\nevent: {event}\ndata: {json.dumps(data)}\n\n"
        for queue in self._watchers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(text)

    async def watch(self, first: Any = None) -> AsyncIterator[str]:
        """The text of all events from now on.

        Args:
            first: A `snapshot` to begin with, so that who missed some knows how things stand.
        """
        queue: asyncio.Queue[str] = asyncio.Queue(WAITING)
        self._watchers.add(queue)
        try:
            yield "retry: 1000\n\n"
            if first is not None:
                yield f"event: snapshot\ndata: {json.dumps(first)}\n\n"
            while True:
                try:
                    yield await asyncio.wait_for(queue.get(), QUIET_S)
                except TimeoutError:
                    yield ": nothing new\n\n"
        finally:
            self._watchers.discard(queue)
