"""The UE's end of a session."""

from __future__ import annotations

import math
from collections.abc import Sequence

from megdt.errors import MessageError, ResumeError, SessionError
from megdt.link.energy import DeviceProfile
from megdt.records import Kind, Ledger, Side
from megdt.runtime import messages
from megdt.runtime.contents import Content, pack
from megdt.runtime.events import Answered, Event, Failed, LinesArrived, Opened
from megdt.runtime.handshake import check_peer, check_version
from megdt.runtime.limits import Limits
from megdt.runtime.scanning import Frame
from megdt.runtime.session import Session


class UeSession(Session):
    """Asks for what is to be made, and runs the UE's side of it.

    Args:
        bundle: Checksum of the models on this UE.
        device: What this UE is.
        capabilities: Such as "fp16" or "camera".
        limits: Of this end.
    """

    side = Side.UE

    def __init__(
        self,
        *,
        bundle: str,
        device: DeviceProfile,
        capabilities: Sequence[str] = (),
        limits: Limits | None = None,
    ) -> None:
        super().__init__(limits or Limits())
        self.bundle, self.device, self.capabilities = bundle, device, list(capabilities)
        self.peer: messages.Welcome | None = None
        """How the ES greeted last."""
        self._asked: dict[str, float] = {}
        """Deadline of each request that runs. [s]"""
        self._cancelled: set[str] = set()
        """Requests of which the ES has yet to say its last."""
        self._takers |= {
            messages.Welcome: self._take_welcome,
            messages.Lines: self._take_lines,
            messages.Result: self._take_result,
            messages.Failure: self._take_failure,
        }

    @property
    def asked(self) -> tuple[str, ...]:
        """Keys of the requests that run."""
        return tuple(self._asked)

    @property
    def wake_s(self) -> float:
        """When `tick` has to be called, and `next_frame` after it, if nothing happens before."""
        waiting = () if self._over else self._asked.values()
        return min(super().wake_s, min(waiting, default=math.inf))

    def connect(self, now_s: float) -> None:
        """A connection is there: begin the session, or go on after a cut.

        Raises:
            SessionError: If the session is over, or has a connection.
        """
        if self._over or self._connected:
            raise SessionError(
                f"session is in phase {self.phase}; connect one that is new or cut, or begin another"
            )
        hello = messages.Hello(
            bundle=self.bundle,
            device=self.device,
            capabilities=self.capabilities,
            session=self.id,
            received=self._receiver.received,
            credit=self._receiver.grant(),
        )
        self._greeting = messages.encode(hello)
        self._connect(now_s)

    def ask(self, key: str, tables: messages.Tables, *, deadline_s: float, now_s: float) -> None:
        """Ask the ES to make something.

        Args:
            key: Of this request alone; under it it can be asked again, in this session or another,
                and is made once.
            tables: Of a scenario, as `parse_scenario` takes them.
            deadline_s: From now on, and again from when the ES has it.
            now_s: On the driver's clock.

        Raises:
            SessionError: If the session is over or leaving, or the key runs already.
            MessageError: If the tables hold what no message carries.
        """
        if self._over or self._said_bye or self._heard_bye:
            raise SessionError(f"session is {self.phase}; begin another to ask for more")
        if key in self._asked or key in self._cancelled:
            what = "runs already" if key in self._asked else "is being cancelled"
            raise SessionError(f"request {key} {what}; wait for its end, or take another key")
        message = messages.Request(key=key, deadline_s=deadline_s, tables=tables)
        # What does not come back the same would run under another meaning: refused before it is sent.
        messages.decode(messages.encode(message, self.limits), self.limits)
        self._sender.put(message)
        self._asked[key] = now_s + deadline_s

    def cancel(self, key: str) -> None:
        """Want it no longer; nothing more is told of it."""
        if self._asked.pop(key, None) is None:
            return
        dropped = self._sender.drop(key)
        self._end_key(key)
        if not any(isinstance(message, messages.Request) for message in dropped):
            self._cancelled.add(key)
            self._sender.put(messages.Cancel(key=key), first=True)
        self._leave_if_done()

    def send_feature(
        self, key: str, content: Content, *, source: str, to_side: Side, kind: Kind
    ) -> None:
        """Send a feature to the ES.

        Args:
            key: Of the request.
            content: As it crosses.
            source: The stage that made it.
            to_side: Where it goes.
            kind: What it is.

        Raises:
            SessionError: If the request does not run, or too much waits to be sent already.
            MessageError: If no message carries it.
        """
        self._send(*pack(content, key=key, source=source, to_side=to_side, kind=kind))

    def send_lines(self, key: str, ledger: Ledger) -> None:
        """Tell what this UE's stages and crossings have cost.

        Raises:
            SessionError: If the request does not run.
        """
        self._send(messages.Lines(key=key, ledger=ledger))

    def tick(self, now_s: float) -> list[Event]:
        """See what the time has brought: what is late is cancelled."""
        for key, deadline_at_s in list(self._asked.items()):
            if now_s >= deadline_at_s and not self._over:
                self.cancel(key)
                late = f"request {key} has no result by its deadline; ask again with a later one"
                self._events.append(Failed(key=key, error=SessionError(late, code="deadline")))
        return super().tick(now_s)

    def _take(self, frame: Frame, now_s: float) -> None:
        if not self._greeted:
            check_version(frame, self.limits, here="UE", there="ES")
        super()._take(frame, now_s)

    def _take_welcome(self, welcome: messages.Welcome, now_s: float) -> None:
        if self._greeted:
            raise MessageError("a second welcome message comes; greet once a connection")
        check_peer(welcome, self.bundle, here="UE", there="ES")
        if self.id and welcome.session != self.id:
            raise ResumeError(
                f"the ES goes on with session {welcome.session[:8]}..., this one is "
                f"{self.id[:8]}...; begin a new session",
                code="resume",
            )
        resumed = bool(self.id)
        self._sender.resume(welcome.received, welcome.credit)
        self._sender.largest_bytes = self._sender.largest_bytes or welcome.credit
        self.id, self.peer, self._greeted = welcome.session, welcome, True
        self._events.append(Opened(resumed=resumed))

    def _take_lines(self, lines: messages.Lines, now_s: float) -> None:
        if lines.key in self._asked:
            self._events.append(LinesArrived(key=lines.key, ledger=lines.ledger))

    def _take_result(self, result: messages.Result, now_s: float) -> None:
        if self._end_request(result.key):
            self._events.append(
                Answered(key=result.key, outcome=result.outcome, ledger=result.ledger)
            )

    def _take_failure(self, failure: messages.Failure, now_s: float) -> None:
        if self._end_request(failure.key):
            error = SessionError(
                messages.one_line(failure.message, 500),
                code=failure.code,
                retry_after_s=failure.retry_after_s,
            )
            self._events.append(Failed(key=failure.key, error=error))

    def _end_request(self, key: str) -> bool:
        self._cancelled.discard(key)
        if self._asked.pop(key, None) is None:
            return False
        self._sender.drop(key)
        self._end_key(key)
        return True

    def _is_open(self, key: str) -> bool:
        return key in self._asked

    def _runs(self) -> bool:
        return bool(self._asked)
