"""One end of a session: frames go in as bytes and come out as bytes, and nothing is waited for.

Whoever drives it owns the connection and the clock:

    for event in session.receive(frame, now_s): ...       each frame that comes
    while frame := session.next_frame(now_s): ...         whenever one can be sent
    for event in session.tick(now_s): ...                 no later than `wake_s`
    session.cut(now_s)                                    when the connection is lost

A session outlives its connections. What was numbered and not acknowledged when one was cut goes out
again on the next, so each message arrives once and in order, or the session says that it cannot.
`ue_session.py` and `es_session.py` are the two ends.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar, Literal

from megdt.errors import HandshakeError, MessageError, ResumeError, SessionError
from megdt.records import Side
from megdt.runtime import messages
from megdt.runtime.events import Closed, Event, FeatureArrived, Leaving, Silent, StatesCompared
from megdt.runtime.limits import Limits
from megdt.runtime.scanning import Frame
from megdt.runtime.transfer import Arrived, Receiver, Sender

Phase = Literal["new", "greeting", "open", "leaving", "cut", "closed"]
"""`new`: never connected. `greeting`: connected, and not yet taken by the other end. `leaving`: one
end has said bye, and what runs is finished. `cut`: the connection is lost, and may come again."""

_MEASURED_BYTES = 4096
"""At least so many have to be acknowledged at once to tell a rate by."""

_KINDS: dict[str, type[SessionError]] = {
    "version": HandshakeError,
    "bundle": HandshakeError,
    "session": ResumeError,
    "resume": ResumeError,
}
"""By code of the message that ends a session."""


class Session:
    """What both ends have in common; see the module for how to drive it."""

    side: ClassVar[Side]

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.error: SessionError | None = None
        """Why it is over; None before, and after a clean bye."""
        self.id = ""
        """As the ES named it."""
        self.connections = 0
        """So far: tells a new connection from the one that it replaces."""
        self.round_trip_s: float | None = None
        """Of the last ping; None before one was answered."""
        self.rate_bytes_s: float | None = None
        """Of features to the other end, as it has acknowledged them; None before it has any."""
        self._under_way: deque[tuple[int, int, float]] = deque()
        """Of frames that are not acknowledged: number, bytes in all until then, when it was sent."""
        self._sender, self._receiver = Sender(limits), Receiver(limits)
        self._connected = self._greeted = self._over = False
        self._said_bye = self._heard_bye = False
        self._greeting: bytes | None = None
        self._last_words: bytes | None = None
        self._heard_s = self._cut_s = 0.0
        self._ack_since_s: float | None = None
        self._ack_bytes, self._ack_now = 0, False
        self._pong: int | None = None
        self._pings, self._pinged_s = 0, math.nan
        self._states: dict[tuple[str, str], list[str | None]] = {}
        self._events: list[Event] = []
        self._takers: dict[type[messages.Message], Callable[[Any, float], None]] = {
            messages.Ack: self._take_ack,
            messages.Ping: self._take_ping,
            messages.Pong: self._take_pong,
            messages.Error: self._take_error,
            messages.Bye: self._take_bye,
            messages.Feature: self._take_feature,
            messages.Chunk: self._take_chunk,
            messages.State: self._take_state,
        }

    @property
    def phase(self) -> Phase:
        """Where it stands."""
        if self._over:
            return "closed"
        if not self._connected:
            return "cut" if self.connections else "new"
        if not self._greeted:
            return "greeting"
        return "leaving" if self._said_bye or self._heard_bye else "open"

    @property
    def queued_bytes(self) -> int:
        """Of features that wait here to be sent: hold back while it is large."""
        return self._sender.queued_bytes

    @property
    def held_bytes(self) -> int:
        """Of features that came and were not released."""
        return self._receiver.held_bytes

    @property
    def wake_s(self) -> float:
        """When `tick` has to be called, and `next_frame` after it, if nothing happens before.

        It is past while a frame is due: who cannot write waits for that, and not for this.
        """
        if self._events:
            return -math.inf
        if self._over or not self._connected:
            return math.inf
        if not self._greeted:
            return self._heard_s + self.limits.greeting_s
        ack_s = math.inf
        if self._ack_since_s is not None:
            ack_s = self._ack_since_s + self.limits.ack_delay_s
        asked = self._pinged_s >= self._heard_s
        quiet_s = self.limits.silence_s if asked else self.limits.ping_s
        return min(ack_s, self._heard_s + quiet_s)

    def receive(self, frame: Frame, now_s: float) -> list[Event]:
        """Take a frame, which is never an error here: one that is bad closes the session.

        Args:
            frame: As it came, one message.
            now_s: On the driver's clock, which never goes back. [s]
        """
        if self._over or not self._connected:
            return self._told()
        self._heard_s = now_s
        try:
            self._take(frame, now_s)
        except SessionError as error:
            self._fail(error)
        return self._told()

    def _take(self, frame: Frame, now_s: float) -> None:
        message = messages.decode(frame, self.limits)
        taker = self._takers.get(type(message))
        greeting = isinstance(message, messages.Hello | messages.Welcome)
        if taker is None or not (greeting or self._greeted or isinstance(message, messages.Error)):
            raise MessageError(
                f"a {type(message).__name__.lower()} message comes to the {self.side} in phase "
                f"{self.phase}; see docs/protocol.md for who sends what, and when"
            )
        if isinstance(message, messages.Numbered):
            if not self._receiver.take_number(message.seq):
                return
            self._want_ack(now_s, len(frame))
        taker(message, now_s)
        self._leave_if_done()

    def _take_ack(self, ack: messages.Ack, now_s: float) -> None:
        self._sender.acknowledge(ack.received, ack.credit)
        here = [self._under_way.popleft() for f in tuple(self._under_way) if f[0] <= ack.received]
        size_bytes = sum(size for _, size, _ in here)
        if size_bytes >= _MEASURED_BYTES and now_s > here[0][2]:
            rate = size_bytes / (now_s - here[0][2])
            before = rate if self.rate_bytes_s is None else self.rate_bytes_s
            self.rate_bytes_s = (before + rate) / 2

    def _take_ping(self, ping: messages.Ping, now_s: float) -> None:
        self._pong = ping.number  # of many that were not answered yet, the last

    def _take_pong(self, pong: messages.Pong, now_s: float) -> None:
        if pong.number == self._pings:
            self.round_trip_s = now_s - self._pinged_s

    def _take_error(self, error: messages.Error, now_s: float) -> None:
        text = messages.one_line(error.message, 500)
        kind = _KINDS.get(error.code, SessionError)
        self._fail(kind(text, code=error.code, retry_after_s=error.retry_after_s), tell=False)

    def _take_bye(self, bye: messages.Bye, now_s: float) -> None:
        self._heard_bye = self._ack_now = True
        self._events.append(Leaving())

    def _take_feature(self, feature: messages.Feature, now_s: float) -> None:
        over = not self._is_open(feature.key)
        self._arrive(self._receiver.announce(feature, over=over))

    def _take_chunk(self, chunk: messages.Chunk, now_s: float) -> None:
        self._arrive(self._receiver.take_chunk(chunk))

    def _arrive(self, arrived: Arrived | None) -> None:
        if arrived is None:
            return
        told = arrived.announced
        event = FeatureArrived(
            key=told.key,
            source=told.source,
            to_side=told.to_side,
            kind=told.kind,
            content=arrived.content,
            size_bytes=told.size_bytes,
        )
        if self._is_new(event):
            self._events.append(event)
        else:
            self._receiver.release(told.size_bytes)

    def _is_open(self, key: str) -> bool:
        """Whether a request of this session runs under the key."""
        raise NotImplementedError

    def _is_new(self, event: FeatureArrived) -> bool:
        """Whether anybody is to be told of a feature."""
        return True

    def _take_state(self, state: messages.State, now_s: float) -> None:
        if self._is_open(state.key):
            self._compare(state, theirs=True)

    def _compare(self, state: messages.State, *, theirs: bool) -> None:
        name = state.key, state.stage
        known = self._states.setdefault(name, [None, None])
        known[theirs] = state.hash
        if None not in known:
            same = known[0] == known[1]
            self._events.append(StatesCompared(key=state.key, stage=state.stage, same=same))
        elif len([1 for key, _ in self._states if key == state.key]) > self.limits.states:
            raise MessageError(
                f"request {state.key} names more than {self.limits.states} states; name those that "
                "both ends have"
            )

    def _told(self) -> list[Event]:
        told, self._events = self._events, []
        return told

    def next_frame(self, now_s: float) -> bytes | None:
        """The next frame to send; None where there is none now.

        Take one whenever the connection can be written to and not before: what waits here is bounded,
        and what is most urgent then goes first.
        """
        if self._last_words is not None:
            frame, self._last_words = self._last_words, None
            return frame
        if self._over:
            clean = self._connected and self.error is None and self._ack_since_s is not None
            return self._acknowledge() if clean else None
        if self._greeting is not None:
            frame, self._greeting = self._greeting, None
            return frame
        if not (self._connected and self._greeted):
            return None
        if self._pong is not None:
            number, self._pong = self._pong, None
            return messages.write(messages.Pong(number=number))
        if self._is_ack_due(now_s):
            return self._acknowledge()
        asked = self._pinged_s >= self._heard_s
        if not asked and now_s >= self._heard_s + self.limits.ping_s:
            self._pings, self._pinged_s = self._pings + 1, now_s
            return messages.write(messages.Ping(number=self._pings))
        due = self._sender.next_frame()
        if due is not None:
            self._under_way.append((self._sender.sent, len(due), now_s))
        return due

    def _want_ack(self, now_s: float, size_bytes: int) -> None:
        self._ack_bytes += size_bytes
        if self._ack_since_s is None:
            self._ack_since_s = now_s

    def _is_ack_due(self, now_s: float) -> bool:
        if self._ack_since_s is None:
            return False
        return (
            self._ack_now
            or self._ack_bytes >= self.limits.ack_bytes
            or self._receiver.ungranted_bytes >= self.limits.window_bytes // 4
            or now_s >= self._ack_since_s + self.limits.ack_delay_s
        )

    def _acknowledge(self) -> bytes:
        self._ack_since_s, self._ack_bytes, self._ack_now = None, 0, False
        received, credit = self._receiver.received, self._receiver.grant()
        return messages.write(messages.Ack(received=received, credit=credit))

    def release(self, size_bytes: int, now_s: float) -> None:
        """A feature that arrived was taken over: the peer may send as many bytes again.

        Raises:
            SessionError: If so many are not held.
        """
        self._receiver.release(size_bytes)
        self._want_ack(now_s, 0)

    def tell_state(self, key: str, stage: str, state_hash: bytes) -> None:
        """Name what this end's copy of a model holds after a stage; see `models.lockstep.state_hash`.

        Raises:
            SessionError: If no such request runs in this session.
        """
        self._send(messages.State(key=key, stage=stage, hash=state_hash.hex()))

    def _send(self, message: messages.Numbered, body: bytes = b"") -> None:
        key = getattr(message, "key", "")
        if not self._is_open(key):
            raise SessionError(
                f"request {key} does not run in this session; send while it does, with its key"
            )
        messages.encode(message, self.limits)  # so that who sends is told of what no frame may hold
        self._queue(message, body)

    def _queue(self, message: messages.Numbered, body: bytes) -> None:
        if isinstance(message, messages.State):
            self._compare(message, theirs=False)
        largest_bytes = self._sender.largest_bytes or self.limits.window_bytes
        if len(body) > largest_bytes:
            raise SessionError(
                f"a feature of {len(body)} bytes is beyond the {largest_bytes} that the other end "
                "takes; take a codec of fewer bits",
                code="request",
            )
        self._sender.put(message, body)

    def _connect(self, now_s: float) -> None:
        self.connections += 1
        self._connected, self._greeted = True, False
        self._heard_s = now_s
        self._ack_since_s, self._ack_bytes, self._ack_now = None, 0, False
        self._pong, self._pinged_s = None, math.nan
        self._under_way.clear()

    def cut(self, now_s: float, *, connection: int | None = None) -> None:
        """The connection is lost; the session waits for another.

        Args:
            now_s: On the driver's clock.
            connection: Its number, as `connections` was when it began: one that another has replaced
                is not missed. None for the present one.
        """
        if connection not in (None, self.connections) or not self._connected or self._over:
            return
        self._connected, self._cut_s, self._greeting = False, now_s, None

    def close(self) -> None:
        """Say bye: no new requests, and the session is over when those that run are."""
        if self._over or self._said_bye:
            return
        self._said_bye = True
        self._sender.put(messages.Bye())

    def tick(self, now_s: float) -> list[Event]:
        """See what the time has brought."""
        if self._connected and not self._over:
            # A link that is black for longer than a greeting may take is no reason to end a session.
            silence_s = self.limits.silence_s if self._greeted else self.limits.greeting_s
            if now_s >= self._heard_s + silence_s:
                self.cut(now_s)
                self._events.append(Silent())
        return self._told()

    def _leave_if_done(self) -> None:
        if not self._heard_bye or self._over:
            return
        if not self._said_bye and not self._runs():
            self.close()
        if self._said_bye and not self._runs() and self._sender.is_idle:
            self._over = True
            self._events.append(Closed(error=None))

    def _runs(self) -> bool:
        """Whether a request of this session does."""
        raise NotImplementedError

    def _end_key(self, key: str) -> None:
        """A request is over: nothing more of it is taken."""
        self._receiver.drop(key)
        for name in [name for name in self._states if name[0] == key]:
            del self._states[name]

    def _fail(self, error: SessionError, *, tell: bool = True) -> None:
        """End the session, and tell the peer why where that is not what it has told."""
        if self._over:
            return
        self._over, self.error = True, error
        if tell and self._connected:
            self._last_words = messages.encode(
                messages.Error(
                    code=messages.as_code(error, messages.ErrorCode, "session"),
                    message=messages.one_line(str(error), 500),
                    retry_after_s=error.retry_after_s,
                )
            )
        self._events.append(Closed(error=error))
