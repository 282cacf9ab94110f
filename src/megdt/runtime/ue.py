"""A UE: asks an edge server, runs its own side, and connects again where the network cuts it off."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from megdt.errors import MissingExtraError, ResumeError, SessionError
from megdt.link.energy import DeviceProfile, load_profile
from megdt.mechanisms.execute import Progress
from megdt.mechanisms.stages import Edge
from megdt.records import Delivery, Feature, Ledger, Outcome, Packet, Side
from megdt.runtime.driving import LAST_WORDS_S, clock, drive
from megdt.runtime.events import Answered, Event, Failed, FeatureArrived
from megdt.runtime.limits import Limits
from megdt.runtime.messages import Tables, one_line
from megdt.runtime.parcels import largest_message
from megdt.runtime.sides import Asked, Post, lines_of, parse_request, run_part, states_of
from megdt.runtime.ue_session import UeSession

try:
    from websockets.asyncio.client import ClientConnection, connect
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
    from websockets.http11 import Response
except ImportError:
    raise MissingExtraError("a UE needs websockets; pip install websockets") from None

if TYPE_CHECKING:
    from megdt.models.bundle import Bundle
    from megdt.models.diffusers_adapter import DiffusersModels
    from megdt.models.onnx_models import OnnxModels
    from megdt.models.tiny_autoencoder import TinyAutoencoder
    from megdt.scenario import Model

UeModels: TypeAlias = "Bundle | OnnxModels | DiffusersModels | TinyAutoencoder"

RETRY_S = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Waited before each attempt to connect again; the last from then on."""
FIRST_TRIES = 3
"""Attempts at a first connection that nothing answers; a bad network may be the reason."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of a request."""

    outcome: Outcome
    made: Feature | None
    """By the last stage, where that is this UE's."""
    features: Mapping[str, Feature]
    """All that this UE has made, by stage."""
    ledger: Ledger


class Ue:
    """One session with an edge server.

    Args:
        url: Of the server's session, such as ws://127.0.0.1:8420/v1/session.
        token: That the server has minted, or who mints one for each connection.
        tls: What is known of the server's certificate; the system's where left out.
        models: Of this UE.
        model: Whose they are; the bundle's where left out.
        device: What this UE is; a phone where left out.
        limits: Of this end.
    """

    def __init__(
        self, url: str, *, token: str | Callable[[], str], models: UeModels,
        model: Model | None = None, device: DeviceProfile | None = None, limits: Limits | None = None, tls: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        self.url, self._token, self._tls, self.models = url, token, tls, models
        self._model = model
        self._begin = partial(
            UeSession, bundle=models.checksum, device=device or load_profile("phone"), limits=limits
        )
        self.session = self._begin()
        """The present one: another, where the server has lost it."""
        self._posts: dict[str, Post] = {}
        self._ends: dict[str, asyncio.Future[Answered]] = {}
        self._wake = asyncio.Event()
        self._driving: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None
        """Of the last connection."""
        self._error: SessionError | None = None
        """Why nobody drives the session any more."""

    async def __aenter__(self) -> Ue:
        self._driving = asyncio.create_task(self._drive())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._driving is not None
        self.session.close()
        self._wake.set()
        await asyncio.wait((self._driving,), timeout=LAST_WORDS_S)
        if self._transport is not None:
            # What a bad network still holds back is waited for no longer.
            self._transport.abort()
        self._driving.cancel()
        await asyncio.wait((self._driving,))

    async def ask(
        self,
        tables: Tables,
        *,
        picture: NDArray[np.uint8] | None = None,
        deadline_s: float = 60.0,
        key: str = "",
    ) -> Answer:
        """Have something made, and make this side's part of it.

        Args:
            tables: Of a scenario; `link.channel` may be "network", which leaves the radio out.
            picture: What the camera sees, where the mechanism senses. [height, width, 3]
            deadline_s: From now on.
            key: Of the request; drawn where left out.

        Raises:
            SessionError: If there is no answer, and why.
            MegdtError: If the tables are no scenario, or this side's stages fail.
        """
        asked, key = parse_request(tables, self._model), key or secrets.token_hex(8)
        # The server has its own, of the same checksum.
        tables = {name: table for name, table in tables.items() if name != "model"}
        until_s = clock() + deadline_s
        while True:
            left_s = until_s - clock()
            try:
                return await self._ask(asked, tables, picture, left_s, key)
            except SessionError as error:
                wait_s = error.retry_after_s or 0.0
                # It may go later, or in a session of the ES's next life.
                again = error.code == "busy" or isinstance(error, ResumeError)
                if not again or clock() + wait_s >= until_s:
                    raise
                await asyncio.sleep(wait_s)

    async def _ask(
        self, asked: Asked, tables: Tables, picture: NDArray[np.uint8] | None, deadline_s: float,
        key: str,
    ) -> Answer:  # fmt: skip
        if self._error is not None:
            raise self._error
        loop, session = asyncio.get_running_loop(), self.session

        def send(edge: Edge, sent: Packet | Delivery) -> None:
            tell = partial(
                session.send_feature, key, sent, source=edge.source.name,
                to_side=edge.target.side, kind=edge.source.makes,
            )  # fmt: skip
            loop.call_soon_threadsafe(self._tell, tell)

        view = None if picture is None else Feature(kind="image", values=picture)
        # It refuses a key that runs already, whose post stays its own.
        session.ask(key, tables, deadline_s=deadline_s, now_s=clock())
        post = self._posts[key] = Post(Side.UE, send, deadline_s=deadline_s)
        end = self._ends[key] = loop.create_future()
        try:
            self._wake.set()
            part = partial(run_part, asked, Side.UE, self.models, post, view=view)
            working: asyncio.Future[Progress] = loop.run_in_executor(None, part)
            done, _ = await asyncio.wait({working, end}, return_when=asyncio.FIRST_COMPLETED)
            if end in done and working not in done:
                post.stop(end.exception() or SessionError(f"request {key} is over"))  # type: ignore[arg-type]
            made = await working
            for stage, state in states_of(made).items():
                self._tell(partial(session.tell_state, key, stage, state))
            self._tell(partial(session.send_lines, key, lines_of(made)))
            answered = await end
        finally:
            post.stop(SessionError(f"request {key} is over", code="cancelled"))
            session.cancel(key)
            self._wake.set()
            end.cancel()
            del self._posts[key], self._ends[key]
        last = asked.scenario.mechanism.stages[-1].name
        return Answer(
            outcome=answered.outcome, made=made.features.get(last), features=made.features,
            ledger=answered.ledger,
        )  # fmt: skip

    def _tell(self, tell: partial[None]) -> None:
        # What is over meanwhile wants no more of it.
        with contextlib.suppress(SessionError):
            tell()
        self._wake.set()

    async def _drive(self) -> None:
        error = SessionError("nobody drives this session any more", code="closed")
        try:
            await self._carry()
            while isinstance(self.session.error, ResumeError):
                # The server does not know it any more: what it was to make is asked again.
                lost, self.session = self.session.error, self._begin()
                for key in tuple(self._ends):
                    self._fail(key, lost)
                await self._carry()
            error = self.session.error or error
        except SessionError as said:
            error = said
        finally:
            self._give_up(error)

    async def _carry(self) -> None:
        """Over one connection after the other, until the session is over.

        Raises:
            SessionError: If there is no server, or it refuses this UE.
        """
        failures = 0
        while not self._over():
            wait_s = RETRY_S[min(failures, len(RETRY_S) - 1)]
            token = self._token if isinstance(self._token, str) else self._token()
            more: dict[str, Any] = {} if self._tls is None else {"ssl": self._tls}
            try:
                async with connect(
                    self.url, additional_headers={"Authorization": f"Bearer {token}"},
                    compression=None, max_size=largest_message(self.session.limits),
                    open_timeout=self.session.limits.greeting_s, **more,
                ) as socket:  # fmt: skip
                    self._transport = socket.transport
                    self.session.connect(clock())
                    await drive(self.session, _Socket(socket), self._handle, self._wake)
                    failures = 0
            except InvalidStatus as error:
                status = error.response.status_code
                if status < 500:
                    raise _refusal(self.url, error.response) from None
                # It is full, stops, or something before it has lost it: later it may go.
                wait_s = max(wait_s, _seconds(error.response.headers.get("Retry-After")))
            except (InvalidHandshake, InvalidURI) as error:
                # Where one has been, this is a connection that was cut early.
                if not self.session.connections:
                    message = f"{self.url} is no edge server's: {error}"
                    raise SessionError(message, code="refused") from None
            except OSError as error:
                late = isinstance(error, TimeoutError) and failures + 1 < FIRST_TRIES
                if not (self.session.connections or late):
                    message = f"{self.url} cannot be reached: {error.strerror or error}"
                    raise SessionError(message, code="unreachable") from None
            if self._over():
                break
            await asyncio.sleep(wait_s)
            failures += 1
            for event in self.session.tick(clock()):
                self._handle(event)

    def _over(self) -> bool:
        return self.session.phase == "closed"

    def _handle(self, event: Event) -> None:
        if isinstance(event, FeatureArrived):
            self.session.release(event.size_bytes, clock())
            post = self._posts.get(event.key)
            if post is not None:
                post.deliver(event)
        elif isinstance(event, Answered):
            if (end := self._ends.get(event.key)) is not None and not end.done():
                end.set_result(event)
        elif isinstance(event, Failed):
            self._fail(event.key, event.error)

    def _fail(self, key: str, error: SessionError) -> None:
        if (end := self._ends.get(key)) is not None and not end.done():
            end.set_exception(error)
            self._posts[key].stop(error)

    def _give_up(self, error: SessionError) -> None:
        self._error = error
        for key in self._ends:
            self._fail(key, error)


def trust_certificate(path: Path) -> ssl.SSLContext:
    """What takes a server of this certificate, such as one that it has signed itself.

    Raises:
        SessionError: If the file is none.
    """
    try:
        return ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise SessionError(
            f"cannot read certificate {path} ({error}); give the server's, as PEM", code="refused"
        ) from None


def _refusal(url: str, response: Response) -> SessionError:
    """What an answer says that lets nobody in."""
    message = f"answers with {response.status_code}; see that the address is an edge server's"
    with contextlib.suppress(ValueError, AttributeError, TypeError):
        message = one_line(str(json.loads(response.body)["message"]), 300)
    return SessionError(f"{url} refuses this UE: {message}", code="refused")


def _seconds(text: str | None) -> float:
    return float(text) if text is not None and text.isdecimal() else 0.0


class _Socket:
    """A connection of websockets."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def messages(self) -> AsyncIterator[bytes]:
        """Each binary message; a text ends the connection."""
        with contextlib.suppress(ConnectionClosed):
            async for message in self._socket:
                if isinstance(message, str):
                    return
                yield message

    async def send(self, message: bytes) -> None:
        """One binary message."""
        try:
            await self._socket.send(message)
        except ConnectionClosed as error:
            raise ConnectionError("the connection is lost") from error
