"""A session carried by a connection, in asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Protocol

from megdt.runtime.events import Event
from megdt.runtime.parcels import join_frames, split_message
from megdt.runtime.session import Session

clock = time.monotonic
"""Of every session here. [s]"""

LONGEST_WAIT_S = 3600.0
"""Until a session that waits for nothing is looked at again."""

LAST_WORDS_S = 5.0
"""That a connection has to take what ends its session."""


class Connection(Protocol):
    """What messages of frames cross: a WebSocket of whichever library."""

    def messages(self) -> AsyncIterator[bytes]:
        """Each that comes, until the connection is lost or closed."""
        ...

    async def send(self, message: bytes) -> None:
        """Returns when there is room for the next.

        Raises:
            ConnectionError: If it is lost.
        """
        ...


async def drive(
    session: Session, connection: Connection, handle: Callable[[Event], None], wake: asyncio.Event
) -> None:
    """Carry a session that has just been connected, until this connection or the session is over.

    Args:
        session: Its `connect` or `accept` has been called.
        connection: Its own from here on.
        handle: Takes what the session tells.
        wake: Set whenever something was given to the session to send.
    """
    number = session.connections
    writer = asyncio.create_task(_write(session, number, connection, handle, wake))
    reader = asyncio.create_task(_read(session, number, connection, handle, wake))
    try:
        await asyncio.wait((writer, reader), return_when=asyncio.FIRST_COMPLETED)
        if session.phase == "closed":
            await asyncio.wait((writer,), timeout=LAST_WORDS_S)
    finally:
        writer.cancel()
        reader.cancel()
        ended = await asyncio.gather(writer, reader, return_exceptions=True)
        session.cut(clock(), connection=number)
    for error in ended:
        if isinstance(error, Exception) and not isinstance(error, ConnectionError):
            raise error


async def _write(
    session: Session, number: int, connection: Connection, handle: Callable[[Event], None],
    wake: asyncio.Event,
) -> None:  # fmt: skip
    loop = asyncio.get_running_loop()
    while session.connections == number:
        wake.clear()
        for event in session.tick(clock()):
            handle(event)
        for message in join_frames(_due_frames(session, number), session.limits):
            await connection.send(message)
        if session.phase in ("closed", "cut"):
            return
        # A timer costs less than a timeout around the wait, and there is one for each message.
        wait_s = min(max(session.wake_s - clock(), 0.0), LONGEST_WAIT_S)
        timer = loop.call_later(wait_s, wake.set)
        try:
            await wake.wait()
        finally:
            timer.cancel()


def _due_frames(session: Session, number: int) -> Iterator[bytes]:
    while session.connections == number and (frame := session.next_frame(clock())) is not None:
        yield frame


async def _read(
    session: Session, number: int, connection: Connection, handle: Callable[[Event], None],
    wake: asyncio.Event,
) -> None:  # fmt: skip
    async for message in connection.messages():
        if session.connections != number:
            return
        for frame in split_message(message):
            for event in session.receive(frame, clock()):
                handle(event)
        wake.set()
        if session.phase == "closed":
            return
