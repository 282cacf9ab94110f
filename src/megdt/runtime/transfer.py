"""The two directions of a session: numbers, credit, and what is kept until it has been had.

Each end has a `Sender` and a `Receiver`. Features go one after the other and in chunks, so a receiver
holds one that is incomplete at most; what ends a request overtakes them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import msgspec

from megdt.errors import MessageError, ResumeError, SessionError
from megdt.runtime import messages
from megdt.runtime.contents import Content, unpack
from megdt.runtime.limits import Limits


@dataclass(frozen=True, kw_only=True)
class Arrived:
    """A feature, complete."""

    announced: messages.Feature
    content: Content


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A message that waits to be sent, with the bytes of the feature that it announces."""

    message: messages.Numbered
    body: bytes = b""
    frame_bytes: int = 0
    """Of the message."""

    @property
    def key(self) -> str | None:
        """Of the request that it belongs to."""
        return getattr(self.message, "key", None)


class Sender:
    """From here to the peer."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._queue: deque[Waiting] = deque()
        self._first: deque[Waiting] = deque()
        """What overtakes."""
        self._current: tuple[messages.Feature, bytes] | None = None
        """The feature under way, and its bytes."""
        self._offset = 0
        """Of those, how many are sent."""
        self._kept: deque[tuple[int, bytes]] = deque()
        """Frames that were sent and not acknowledged."""
        self._again: deque[bytes] = deque()
        """Of those, the ones that are to be sent again."""
        self._kept_bytes = 0
        self._features = 0
        self._spent = 0
        self.sent = 0
        """Highest `seq`."""
        self.credit = 0
        """Bytes in chunks that the peer has granted in all."""
        self.largest_bytes = 0
        """Largest feature that the peer has room for: its first grant."""
        self.queued_bytes = 0
        """Of all that waits, and of what is left of the feature under way."""

    @property
    def is_idle(self) -> bool:
        """Whether everything has been sent and acknowledged."""
        return not (self._kept or self._queue or self._first or self._current)

    @property
    def kept_bytes(self) -> int:
        """Sent and not acknowledged."""
        return self._kept_bytes

    def put(self, message: messages.Numbered, body: bytes = b"", *, first: bool = False) -> None:
        """Let a message wait for its turn.

        Args:
            message: Of values that are known to be good.
            body: Of the feature that it announces.
            first: Whether it overtakes all that waits.

        Raises:
            SessionError: If too much waits already; nothing was added.
        """
        limits = self._limits
        frame_bytes = len(messages.write(message))
        size_bytes = frame_bytes + len(body)
        goodbye = isinstance(message, messages.Bye)
        if len(self._queue) + len(self._first) >= limits.queue_frames and not goodbye:
            raise SessionError(
                f"{limits.queue_frames} messages wait to be sent and the other end takes none; "
                "read from the connection",
                code="slow",
            )
        small = goodbye or isinstance(message, messages.Cancel | messages.Failure)
        if self.queued_bytes + size_bytes > limits.queue_bytes and not small:
            raise SessionError(
                f"{self.queued_bytes} bytes wait to be sent, {size_bytes} more are beyond the limit "
                f"of {limits.queue_bytes}; wait until the other end has taken some",
                code="slow",
            )
        self.queued_bytes += size_bytes
        waiting = Waiting(message=message, body=body, frame_bytes=frame_bytes)
        (self._first if first else self._queue).append(waiting)

    def drop(self, key: str) -> list[messages.Numbered]:
        """Send nothing more of a request; its feature under way stays a fragment.

        Returns:
            What waited, and now is not sent.
        """
        dropped = [w for w in (*self._first, *self._queue) if w.key == key]
        for queue in (self._first, self._queue):
            stay = [w for w in queue if w.key != key]
            queue.clear()
            queue.extend(stay)
        self.queued_bytes -= sum(w.frame_bytes + len(w.body) for w in dropped)
        if self._current is not None and self._current[0].key == key:
            self.queued_bytes -= len(self._current[1]) - self._offset
            self._current = None
        return [w.message for w in dropped]

    def next_frame(self) -> bytes | None:
        """What may be sent now; None for nothing, or as long as credit or room is lacking."""
        if self._again:
            return self._again.popleft()
        if self._kept_bytes >= self._limits.replay_bytes - self._limits.frame_bytes:
            return None
        if self._current is not None and not self._first:
            return self._next_chunk(*self._current)
        queue = self._first or self._queue
        if not queue:
            return None
        waiting = queue.popleft()
        self.queued_bytes -= waiting.frame_bytes
        message = waiting.message
        if isinstance(message, messages.Feature):
            self._features += 1
            message = msgspec.structs.replace(message, number=self._features)
            if waiting.body:
                self._current, self._offset = (message, waiting.body), 0
        return self._number(message)

    def _next_chunk(self, feature: messages.Feature, body: bytes) -> bytes | None:
        offset = self._offset
        data = memoryview(body)[offset : offset + self._limits.chunk_bytes]
        if self._spent + len(data) > self.credit:
            return None
        self._spent += len(data)
        self.queued_bytes -= len(data)
        self._offset += len(data)
        if self._offset == len(body):
            self._current = None
        return self._number(messages.Chunk(number=feature.number, offset=offset, data=data))

    def _number(self, message: messages.Numbered) -> bytes:
        self.sent += 1
        frame = messages.write(msgspec.structs.replace(message, seq=self.sent))
        self._kept.append((self.sent, frame))
        self._kept_bytes += len(frame)
        return frame

    def acknowledge(self, received: int, credit: int) -> None:
        """The peer has everything up to a `seq`, and grants so much in all.

        Raises:
            MessageError: If it says that it has what was never sent.
        """
        if received > self.sent:
            raise MessageError(
                f"the other end acknowledges message {received}, and {self.sent} were sent; "
                "acknowledge what has come"
            )
        while self._kept and self._kept[0][0] <= received:
            self._kept_bytes -= len(self._kept.popleft()[1])
        self.credit = max(self.credit, credit)

    def resume(self, received: int, credit: int) -> None:
        """After a cut: send again what the peer has not had.

        Raises:
            ResumeError: If that is not kept any more, or never was.
        """
        oldest = self._kept[0][0] if self._kept else self.sent + 1
        if not oldest - 1 <= received <= self.sent:
            raise ResumeError(
                f"the other end has messages up to {received}; {oldest} to {self.sent} are kept "
                f"here of {self.sent}; begin a new session and ask again under the same keys",
                code="resume",
            )
        self.acknowledge(received, credit)
        self._again = deque(frame for _, frame in self._kept)


class Receiver:
    """From the peer to here."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._announced: messages.Feature | None = None
        """The feature under way."""
        self._over = False
        """Whether its request is: then its bytes are thrown away, and it may stay a fragment."""
        self._came = 0
        self._body = bytearray()
        self._numbers = 0
        self._spent = 0
        self._released = 0
        self._granted = limits.window_bytes
        self.received = 0
        """Highest `seq`."""

    @property
    def held_bytes(self) -> int:
        """Sent by the peer and not released here."""
        return self._spent - self._released

    def grant(self) -> int:
        """Credit to tell the peer, which holds from now on."""
        self._granted = self._released + self._limits.window_bytes
        return self._granted

    @property
    def ungranted_bytes(self) -> int:
        """Released since the peer was last told."""
        return self._released + self._limits.window_bytes - self._granted

    def release(self, size_bytes: int) -> None:
        """Bytes of a feature need no more room here."""
        if not 0 <= size_bytes <= self.held_bytes:
            raise SessionError(
                f"{size_bytes} bytes are released and {self.held_bytes} are held; release each "
                "feature once"
            )
        self._released += size_bytes

    def take_number(self, seq: int) -> bool:
        """Whether a numbered message is new; one that was had before is passed over.

        Raises:
            MessageError: If one before it is missing.
        """
        if seq == self.received + 1:
            self.received = seq
            return True
        if 0 < seq <= self.received:
            return False
        raise MessageError(
            f"message {seq} comes after {self.received}; expected {self.received + 1}: number "
            "messages from 1 on, and send them in order"
        )

    def announce(self, feature: messages.Feature, *, over: bool = False) -> Arrived | None:
        """Make ready for a feature; that is all of it where it has no bytes.

        Args:
            feature: What is to come.
            over: Whether its request is: what comes of it is thrown away.

        Raises:
            MessageError: If it is too large, or comes amid another.
        """
        if self._announced is not None and not self._over:
            raise MessageError(
                f"feature {feature.number} comes when {self._came} of "
                f"{self._announced.size_bytes} bytes of feature {self._announced.number} are here; "
                "send one after the other"
            )
        if feature.number != self._numbers + 1:
            raise MessageError(
                f"feature {feature.number} comes after {self._numbers}; number features from 1 on"
            )
        if feature.size_bytes > self._limits.window_bytes:
            raise MessageError(
                f"{feature.kind} of {feature.source} has {feature.size_bytes} bytes, at most "
                f"{self._limits.window_bytes} are taken; take a codec of fewer bits"
            )
        self._numbers, self._announced, self._over, self._came = feature.number, feature, over, 0
        return None if feature.size_bytes else self._complete(feature, bytearray())

    def take_chunk(self, chunk: messages.Chunk) -> Arrived | None:
        """Take a chunk; the feature where it was the last.

        Raises:
            MessageError: If it is of no feature under way, out of its place, or beyond the credit.
        """
        feature, size = self._announced, len(chunk.data)
        if feature is None or chunk.number != feature.number:
            under_way = "none" if feature is None else f"feature {feature.number}"
            raise MessageError(
                f"chunk of feature {chunk.number} comes when {under_way} is under way; announce "
                "each feature"
            )
        if chunk.offset != self._came or not 0 < size <= feature.size_bytes - self._came:
            raise MessageError(
                f"chunk of {size} bytes at {chunk.offset} of feature {chunk.number}, of which "
                f"{self._came} of {feature.size_bytes} bytes are here; send chunks in order"
            )
        if self._spent + size > self._granted:
            raise MessageError(
                f"chunk brings the bytes sent to {self._spent + size}, {self._granted} were "
                "granted; wait for an ack that grants more",
                code="credit",
            )
        self._spent += size
        self._came += size
        if self._over:
            self._released += size
        elif size < feature.size_bytes:
            self._body += chunk.data
        if self._came < feature.size_bytes:
            return None
        return self._complete(feature, self._body or chunk.data)

    def _complete(self, feature: messages.Feature, body: bytearray | memoryview) -> Arrived | None:
        self._announced, self._body = None, bytearray()
        return None if self._over else Arrived(announced=feature, content=unpack(feature, body))

    def drop(self, key: str) -> None:
        """A request is over: throw away what has come, and what is to come, of its feature under way."""
        if self._announced is not None and self._announced.key == key and not self._over:
            self._over = True
            self._released += len(self._body)
            self._body = bytearray()
