"""What one ES makes for all its UEs: each request once, however often it is asked for.

A UE names a request by a key of its own. Under the same key it gets the same answer, whether it asks
while that is being made, afterwards, or in another session, because it did not hear the first time.
"""

from __future__ import annotations

import hashlib
import math
from typing import Literal, Protocol

import msgspec

from megdt.errors import MessageError, SessionError
from megdt.records import Kind, Ledger, Outcome, Side
from megdt.runtime import messages
from megdt.runtime.contents import Content, pack
from megdt.runtime.limits import Limits
from megdt.runtime.transfer import Waiting

RETRY_AFTER_S = 1.0
"""What is said to who comes when everything is taken."""

_canonical = msgspec.msgpack.Encoder(order="deterministic").encode


class Listener(Protocol):
    """A session that waits for an answer."""

    def hear(self, key: str, message: messages.Numbered, body: bytes = b"") -> bool:
        """A part of it, and whether the rest is wanted."""
        ...

    def end(self, last: messages.Result | messages.Failure) -> None:
        """The last of it."""
        ...


class Generation:
    """A request that is answered once.

    Args:
        owner: Whose it is; others cannot ask for it.
        request: As it came first.
        now_s: When.
        limits: Of the ES.
    """

    def __init__(self, owner: str, request: messages.Request, now_s: float, limits: Limits) -> None:
        self._limits = limits
        self.owner, self.key = owner, request.key
        self.tables = request.tables
        """What to make; emptied when it is over."""
        self.deadline_at_s = now_s + request.deadline_s
        self.phase: Literal["running", "over"] = "running"
        self.digest = digest_of(request)
        self.kept_bytes = 0
        """Of the answer so far, headers included."""
        self._told: list[Waiting] | None = []
        self._last: messages.Result | messages.Failure | None = None
        self._listeners: list[Listener] = []
        self._taken: set[tuple[str, Side]] = set()

    @property
    def listeners(self) -> int:
        """Sessions that wait for it."""
        return len(self._listeners)

    def send_feature(self, content: Content, *, source: str, to_side: Side, kind: Kind) -> None:
        """Send a feature to the UE.

        Args:
            content: As it crosses.
            source: The stage that made it.
            to_side: Where it goes.
            kind: What it is.

        Raises:
            SessionError: If no message carries it, or the generation is over.
        """
        self._tell(*pack(content, key=self.key, source=source, to_side=to_side, kind=kind))

    def tell_state(self, stage: str, state_hash: bytes) -> None:
        """Name what the ES's copy holds after a stage; see `models.lockstep.state_hash`."""
        self._tell(messages.State(key=self.key, stage=stage, hash=state_hash.hex()))

    def finish(self, outcome: Outcome, ledger: Ledger) -> None:
        """It is done: tell what became of it, and what all sides have spent.

        Raises:
            MessageError: If the ledger holds what no frame may.
        """
        self._end(messages.Result(key=self.key, outcome=outcome, ledger=ledger))

    def fail(self, code: messages.FailureCode, message: str) -> None:
        """It cannot be done; what has been sent of it is of no use."""
        if self.phase == "over":
            return
        self._told, self.kept_bytes = [], 0
        self._end(
            messages.Failure(key=self.key, code=code, message=messages.one_line(message, 500))
        )

    def _tell(self, message: messages.Numbered, body: bytes = b"") -> None:
        if self.phase == "over" or self._told is None:
            raise SessionError(f"request {self.key} is over; send before finish or fail")
        # Here, so that who sends is told of what no frame may hold.
        frame = messages.encode(message, self._limits)
        self._told.append(Waiting(message=message, body=body))
        self.kept_bytes += len(frame) + len(body)
        for listener in tuple(self._listeners):
            listener.hear(self.key, message, body)

    def _end(self, last: messages.Result | messages.Failure) -> None:
        if self.phase == "over":
            return  # it was cancelled, or late, while who makes it was about to say so
        self.kept_bytes += len(messages.encode(last, self._limits))
        self.phase, self._last, self.tables = "over", last, {}
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener.end(last)

    def attach(self, listener: Listener) -> None:
        """Tell a session all there is so far, and what is to come.

        Raises:
            SessionError: If the answer is not kept any more.
        """
        if self._told is None:
            raise SessionError(
                f"request {self.key} was answered, and its answer is no longer kept; ask under a "
                "new key",
                code="gone",
            )
        for waiting in self._told:
            if not listener.hear(self.key, waiting.message, waiting.body):
                return
        if self._last is not None:
            listener.end(self._last)
        else:
            self._listeners.append(listener)

    def detach(self, listener: Listener) -> None:
        """A session waits no longer."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def take(self, source: str, to_side: Side) -> bool:
        """Whether a feature from the UE is new: of several sessions the first brings it.

        Raises:
            MessageError: If there are too many.
        """
        new = (source, to_side) not in self._taken
        self._taken.add((source, to_side))
        if len(self._taken) > self._limits.features:
            raise MessageError(
                f"request {self.key} brings more than {self._limits.features} features; send what "
                "its stages make"
            )
        return new

    def forget(self) -> None:
        """Keep no more than that it was answered."""
        self._told, self._last, self.kept_bytes = None, None, 0


class Generations:
    """All of one ES."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._running: dict[tuple[str, str], Generation] = {}
        self._over: dict[tuple[str, str], Generation] = {}
        self._kept: dict[tuple[str, str], Generation] = {}
        """Of those that are over, the ones whose answer is kept; the oldest first."""
        self._kept_bytes = 0

    @property
    def running(self) -> tuple[Generation, ...]:
        """Those that are being made."""
        return tuple(g for g in self._running.values() if g.phase == "running")

    def get(self, owner: str, key: str) -> Generation | None:
        """By its owner and key."""
        return self._running.get((owner, key)) or self._over.get((owner, key))

    def ask(self, owner: str, request: messages.Request, now_s: float) -> tuple[Generation, bool]:
        """The generation of a request, and whether it is new.

        Raises:
            SessionError: If the key was another request's, the deadline is too far, or there are
                too many already.
        """
        self._settle()
        found = self.get(owner, request.key)
        if found is not None:
            if found.digest != digest_of(request):
                raise SessionError(
                    f"request {request.key} was asked before with other tables; give each request "
                    "its own key",
                    code="key",
                )
            return found, False
        if request.deadline_s > self._limits.deadline_s:
            raise SessionError(
                f"deadline_s is {request.deadline_s:g}, at most {self._limits.deadline_s:g} is "
                "taken; ask for less",
                code="request",
            )
        if len(self._running) >= self._limits.running:
            raise SessionError(
                f"{len(self._running)} requests are running, which is all that this ES takes; try "
                "again later",
                code="busy",
                retry_after_s=RETRY_AFTER_S,
            )
        generation = Generation(owner, request, now_s, self._limits)
        self._running[owner, request.key] = generation
        return generation, True

    @property
    def wake_s(self) -> float:
        """When the next deadline passes."""
        return min((g.deadline_at_s for g in self.running), default=math.inf)

    def expire(self, now_s: float) -> list[Generation]:
        """Fail those whose deadline has passed."""
        late = [g for g in self.running if g.deadline_at_s <= now_s]
        for generation in late:
            generation.fail("deadline", f"request {generation.key} was not done by its deadline")
        self._settle()
        return late

    def _settle(self) -> None:
        """Put by what is over, and forget the oldest answers beyond the limits."""
        for name, generation in list(self._running.items()):
            if generation.phase == "over":
                self._over[name] = self._kept[name] = self._running.pop(name)
                self._kept_bytes += generation.kept_bytes
        while self._kept_bytes > self._limits.kept_bytes:
            oldest = self._kept.pop(next(iter(self._kept)))
            self._kept_bytes -= oldest.kept_bytes
            oldest.forget()
        while len(self._over) > self._limits.kept_keys:
            name = next(iter(self._over))
            self._kept_bytes -= self._over.pop(name).kept_bytes
            self._kept.pop(name, None)


def digest_of(request: messages.Request) -> bytes:
    """What two requests share that ask for the same: their tables, in whatever order."""
    return hashlib.sha256(_canonical(request.tables)).digest()
