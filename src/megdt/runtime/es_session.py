"""The ES's ends of all sessions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from megdt.errors import MessageError, ResumeError, SessionError
from megdt.link.energy import DeviceProfile
from megdt.records import Side
from megdt.runtime import messages
from megdt.runtime.events import (
    Cancelled,
    Event,
    Expired,
    FeatureArrived,
    LinesArrived,
    Opened,
    Requested,
)
from megdt.runtime.generations import RETRY_AFTER_S, Generation, Generations
from megdt.runtime.handshake import check_peer, check_version
from megdt.runtime.limits import Limits
from megdt.runtime.scanning import Frame
from megdt.runtime.session import Session


class EsSession(Session):
    """The ES's end of one UE's session; `Sessions.accept` makes it.

    What is made for the UE is told through its `Generation`, which sends to every session that asked.

    Args:
        owner: Who the UE has shown to be; requests are kept apart by it.
        generations: Of this ES.
        limits: Of this end.
    """

    side = Side.ES

    def __init__(self, *, owner: str, generations: Generations, limits: Limits) -> None:
        super().__init__(limits)
        self.owner = owner
        self.device: DeviceProfile | None = None
        self.capabilities: tuple[str, ...] = ()
        self._generations = generations
        self._open: dict[str, Generation] = {}
        self._takers |= {
            messages.Request: self._take_request,
            messages.Cancel: self._take_cancel,
            messages.Lines: self._take_lines,
        }

    @property
    def cut_s(self) -> float:
        """When it was cut last. [s]"""
        return self._cut_s

    def greet(
        self,
        hello: messages.Hello,
        now_s: float,
        *,
        name: str,
        bundle: str,
        capabilities: list[str],
    ) -> None:
        """Take a connection, of a new session or after a cut.

        Args:
            hello: Of the UE.
            now_s: On the driver's clock.
            name: Of the session.
            bundle: Of the ES.
            capabilities: Of the ES.

        Raises:
            ResumeError: If it cannot go on where it was.
        """
        self.cut(now_s)
        resumed = bool(self.id)
        self._sender.resume(hello.received, hello.credit)
        self._sender.largest_bytes = self._sender.largest_bytes or hello.credit
        self._connect(now_s)
        welcome = messages.Welcome(
            bundle=bundle,
            capabilities=capabilities,
            session=name,
            received=self._receiver.received,
            credit=self._receiver.grant(),
        )
        self._greeting, self._greeted, self.id = messages.encode(welcome), True, name
        self.device, self.capabilities = hello.device, tuple(hello.capabilities)
        self._events.append(Opened(resumed=resumed))

    def refuse(self, error: SessionError, now_s: float) -> None:
        """End it with its connection: `next_frame` still tells the UE why."""
        if not self._connected:
            self._connect(now_s)
        self._fail(error)

    def hear(self, key: str, message: messages.Numbered, body: bytes = b"") -> bool:
        """A part of an answer, and whether the rest is wanted; not by a UE that takes too little."""
        if self._over or key not in self._open:
            return False
        try:
            self._queue(message, body)
        except SessionError as error:
            self._refuse_request(key, error)
        return key in self._open

    def end(self, last: messages.Result | messages.Failure) -> None:
        """The last of an answer."""
        if self._over or self._open.pop(last.key, None) is None:
            return
        self._end_key(last.key)
        if isinstance(last, messages.Failure):
            self._fail_request(last)
        else:
            try:
                self._sender.put(last)
            except SessionError as error:
                self._refuse_request(last.key, error)
        self._leave_if_done()

    def leave(self) -> None:
        """Wait for no answer any more; generations go on."""
        for generation in self._open.values():
            generation.detach(self)
        self._open.clear()

    def _take_request(self, request: messages.Request, now_s: float) -> None:
        if self._heard_bye:
            raise MessageError(f"request {request.key} comes after a bye; ask before it")
        try:
            generation, new = self._admit(request, now_s)
        except SessionError as error:
            self._refuse_request(request.key, error)
            return
        if request.key in self._open:
            return  # sent twice: the answer is on its way
        self._open[request.key] = generation
        try:
            generation.attach(self)
        except SessionError as error:
            self._refuse_request(request.key, error)
        if new:
            self._events.append(Requested(generation=generation))

    def _admit(self, request: messages.Request, now_s: float) -> tuple[Generation, bool]:
        if self._said_bye:
            raise SessionError(
                "this ES stops and takes no new requests; ask another, or later",
                code="leaving",
                retry_after_s=RETRY_AFTER_S,
            )
        if len(self._open) >= self.limits.requests and request.key not in self._open:
            raise SessionError(
                f"{len(self._open)} requests run in this session, which is all that it may; wait "
                "for one of them",
                code="busy",
                retry_after_s=RETRY_AFTER_S,
            )
        return self._generations.ask(self.owner, request, now_s)

    def _refuse_request(self, key: str, error: SessionError) -> None:
        """Say why; what runs under the key for this session is no longer heard."""
        generation = self._open.pop(key, None)
        if generation is not None:
            generation.detach(self)
            self._end_key(key)
        self._fail_request(
            messages.Failure(
                key=key,
                code=messages.as_code(error, messages.FailureCode, "internal"),
                message=messages.one_line(str(error), 500),
                retry_after_s=error.retry_after_s,
            )
        )

    def _fail_request(self, failure: messages.Failure) -> None:
        """It overtakes what waits, and nothing more is sent of the request."""
        self._sender.drop(failure.key)
        try:
            self._sender.put(failure, first=True)
        except SessionError as error:
            self._fail(error)

    def _take_cancel(self, cancel: messages.Cancel, now_s: float) -> None:
        generation = self._open.pop(cancel.key, None)
        self._end_key(cancel.key)
        dropped = self._sender.drop(cancel.key)
        last = [m for m in dropped if isinstance(m, messages.Result | messages.Failure)]
        if generation is None and not last:
            return  # the last of it is on its way, or there never was one
        text = f"request {cancel.key} was cancelled by its UE"
        self._fail_request(messages.Failure(key=cancel.key, code="cancelled", message=text))
        if generation is None:
            return
        generation.detach(self)
        if not generation.listeners and generation.phase == "running":
            generation.fail("cancelled", text)
            self._events.append(Cancelled(generation=generation))

    def _take_lines(self, lines: messages.Lines, now_s: float) -> None:
        if lines.key in self._open:
            self._events.append(LinesArrived(key=lines.key, ledger=lines.ledger))

    def _is_open(self, key: str) -> bool:
        return key in self._open

    def _is_new(self, event: FeatureArrived) -> bool:
        return self._open[event.key].take(event.source, event.to_side)

    def _runs(self) -> bool:
        return bool(self._open)


class Sessions:
    """All sessions of one ES, and what is made for them.

    Args:
        bundle: Checksum of the models on this ES.
        capabilities: Of the ES, told to each UE.
        limits: Of this end.
    """

    def __init__(
        self, *, bundle: str, capabilities: Sequence[str] = (), limits: Limits | None = None
    ) -> None:
        self.bundle, self.capabilities = bundle, list(capabilities)
        self.limits = limits or Limits()
        self.generations = Generations(self.limits)
        self._sessions: dict[str, EsSession] = {}
        self._closing = False

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[EsSession]:
        return iter(tuple(self._sessions.values()))

    def accept(
        self, frame: Frame, now_s: float, *, owner: str, new_id: str
    ) -> tuple[EsSession, list[Event]]:
        """Take the first frame of a connection.

        Where it cannot be taken, the session is closed already, and its `next_frame` says why. One
        that goes on after a cut is the same object as before, and its old connection, if the ES has
        not noticed its loss, is replaced: `connections` has grown.

        Args:
            frame: A hello message.
            now_s: On the driver's clock.
            owner: Who the UE has shown to be.
            new_id: For a new session: nobody must be able to guess it.
        """
        self._purge(now_s)
        session: EsSession | None = None
        try:
            check_version(frame, self.limits, here="ES", there="UE")
            hello = messages.decode(frame, self.limits)
            if not isinstance(hello, messages.Hello):
                raise MessageError(
                    f"a {type(hello).__name__.lower()} message comes first; begin a connection "
                    "with a hello"
                )
            check_peer(hello, self.bundle, here="ES", there="UE")
            session = self._find(hello, owner)
            session.greet(
                hello,
                now_s,
                name=session.id or new_id,
                bundle=self.bundle,
                capabilities=self.capabilities,
            )
            self._sessions[session.id] = session
        except SessionError as error:
            session = session or self._make(owner)
            session.refuse(error, now_s)
        return session, session.tick(now_s)

    def _make(self, owner: str) -> EsSession:
        return EsSession(owner=owner, generations=self.generations, limits=self.limits)

    def _find(self, hello: messages.Hello, owner: str) -> EsSession:
        if hello.session:
            found = self._sessions.get(hello.session)
            if found is None or found.owner != owner:
                raise ResumeError(
                    f"session {messages.one_line(hello.session, 11)} is not known here: it is over, "
                    f"was cut for more than {self.limits.resume_s:g} s, or the ES has started "
                    "again; begin a new session and ask again under the same keys",
                    code="session",
                )
            return found
        if self._closing or len(self._sessions) >= self.limits.sessions:
            what = "stops" if self._closing else f"has {len(self._sessions)} sessions, its most"
            raise SessionError(
                f"this ES {what}; try again later", code="full", retry_after_s=RETRY_AFTER_S
            )
        return self._make(owner)

    def close(self) -> None:
        """Say bye to all: what runs is finished, and nothing new is taken."""
        self._closing = True
        for session in self._sessions.values():
            session.close()

    @property
    def wake_s(self) -> float:
        """When `tick` has to be called, if nothing happens before; each session has its own."""
        cut = (s.cut_s for s in self._sessions.values() if s.phase == "cut")
        return min(self.generations.wake_s, min(cut, default=math.inf) + self.limits.resume_s)

    def tick(self, now_s: float) -> list[Event]:
        """See what the time has brought: generations that are late, sessions cut for too long."""
        self._purge(now_s)
        return [Expired(generation=late) for late in self.generations.expire(now_s)]

    def _purge(self, now_s: float) -> None:
        for name, session in list(self._sessions.items()):
            forgotten = session.phase == "cut" and now_s >= session.cut_s + self.limits.resume_s
            if forgotten or session.phase == "closed":
                session.leave()
                del self._sessions[name]
