"""The edge server: sessions over WebSocket, and each request's ES side in a thread.

`EdgeServer(Bundle(), tokens={"secret": "anna"}).app` is for uvicorn, or any ASGI server.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from megdt.errors import MegdtError, MissingExtraError, SessionError
from megdt.mechanisms.stages import Edge
from megdt.records import Delivery, Ledger, Side
from megdt.runtime.driving import clock, drive
from megdt.runtime.es_session import EsSession, Sessions
from megdt.runtime.events import (
    Cancelled,
    Event,
    Expired,
    FeatureArrived,
    LinesArrived,
    Requested,
)
from megdt.runtime.generations import Generation
from megdt.runtime.limits import Limits
from megdt.runtime.messages import FailureCode, as_code
from megdt.runtime.sides import Post, join_ledgers, outcome_of, parse_request, run_part

try:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route, WebSocketRoute
    from starlette.websockets import WebSocket, WebSocketDisconnect
except ImportError:
    raise MissingExtraError("an edge server needs starlette; pip install 'megdt[serve]'") from None

if TYPE_CHECKING:
    from megdt.models.bundle import Bundle

PATH = "/v1/session"


class EdgeServer:
    """Runs the ES's side of what UEs ask for.

    Args:
        models: Of the ES.
        tokens: Who each token is of; a UE shows one as "Authorization: Bearer TOKEN".
        workers: Requests whose stages run at once.
        limits: Of this end.
    """

    def __init__(
        self, models: Bundle, *, tokens: Mapping[str, str], workers: int = 1,
        limits: Limits | None = None,
    ) -> None:  # fmt: skip
        self.models, self._tokens = models, dict(tokens)
        self.begun = 0
        """Requests whose ES side was begun; one that comes again is not."""
        self.sessions = Sessions(bundle=models.checksum, limits=limits)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="megdt-es")
        self._posts: dict[Generation, Post] = {}
        self._wakes: dict[EsSession, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.app = Starlette(
            routes=[
                WebSocketRoute(PATH, self._serve),
                Route("/healthz", self._health),
                Route("/readyz", self._ready),
            ],
            lifespan=self._live,
        )

    @contextlib.asynccontextmanager
    async def _live(self, _: Starlette) -> AsyncIterator[None]:
        ticking = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            ticking.cancel()
            for post in self._posts.values():
                post.stop(SessionError("this ES stops", code="leaving"))
            self._pool.shutdown(wait=True, cancel_futures=True)

    async def _tick(self) -> None:
        """See to deadlines, and forget sessions that are cut for too long."""
        while True:
            for event in self.sessions.tick(clock()):
                self._handle(None, event)
            await asyncio.sleep(min(max(self.sessions.wake_s - clock(), 0.01), 0.25))

    async def _health(self, _: Request) -> JSONResponse:
        return JSONResponse({"status": "alive"})

    async def _ready(self, _: Request) -> JSONResponse:
        running = len(self.sessions.generations.running)
        room = running < self.sessions.limits.running
        return JSONResponse(
            {
                "ready": room,
                "sessions": len(self.sessions),
                "running": running,
                "begun": self.begun,
            },
            status_code=200 if room else 503,
        )

    def _owner(self, header: str) -> str | None:
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer":
            return None
        # All are compared, in the time that it takes whatever they are.
        shown = token.encode()
        found = [
            who for known, who in self._tokens.items()
            if hmac.compare_digest(known.encode(), shown)
        ]  # fmt: skip
        return found[0] if found else None

    async def _serve(self, websocket: WebSocket) -> None:
        owner = self._owner(websocket.headers.get("authorization", ""))
        if owner is None:
            await websocket.close(1008, "show a token: Authorization: Bearer TOKEN")
            return
        await websocket.accept()
        connection = _Socket(websocket)
        try:
            async with asyncio.timeout(self.sessions.limits.greeting_s):
                hello = await websocket.receive_bytes()
        except (TimeoutError, WebSocketDisconnect, KeyError):
            await connection.close()
            return
        session, events = self.sessions.accept(
            hello, clock(), owner=owner, new_id=secrets.token_urlsafe(24)
        )
        wake = self._wakes.setdefault(session, asyncio.Event())
        wake.set()  # an old connection of it ends
        handle = partial(self._handle, session)
        for event in events:
            handle(event)
        number = session.connections
        await drive(session, connection, handle, wake)
        if session.phase == "closed" or session.connections == number:
            self._wakes.pop(session, None)
        await connection.close()

    def _handle(self, session: EsSession | None, event: Event) -> None:
        if isinstance(event, Requested):
            self._begin(event.generation)
        elif isinstance(event, Cancelled | Expired):
            if (post := self._posts.get(event.generation)) is not None:
                post.stop(SessionError("nobody waits for it any more", code="cancelled"))
            self._wake()
        elif isinstance(event, FeatureArrived | LinesArrived) and session is not None:
            generation = self.sessions.generations.get(session.owner, event.key)
            post = None if generation is None else self._posts.get(generation)
            if isinstance(event, FeatureArrived):
                session.release(event.size_bytes, clock())
                if post is not None:
                    post.deliver(event)
            elif post is not None:
                post.deliver_lines(event.ledger)

    def _begin(self, generation: Generation) -> None:
        self.begun += 1
        loop = asyncio.get_running_loop()

        def send(edge: Edge, delivery: Delivery) -> None:
            tell = partial(
                generation.send_feature, delivery, source=edge.source.name,
                to_side=edge.target.side, kind=edge.source.makes,
            )  # fmt: skip
            loop.call_soon_threadsafe(self._tell, generation, tell)

        post = Post(send, deadline_s=max(generation.deadline_at_s - clock(), 0.0))
        self._posts[generation] = post
        task = loop.create_task(self._make(generation, post))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _make(self, generation: Generation, post: Post) -> None:
        """Run the ES's side in a thread and tell its end."""
        loop = asyncio.get_running_loop()
        part = partial(self._run, generation, post)
        try:
            end = await loop.run_in_executor(self._pool, part)
        except SessionError as error:
            end = partial(generation.fail, as_code(error, FailureCode, "internal"), str(error))
        except MegdtError as error:
            end = partial(generation.fail, "request", str(error))
        except Exception as error:
            end = partial(generation.fail, "internal", f"the ES has failed: {type(error).__name__}")
        del self._posts[generation]
        self._tell(generation, end)

    def _run(self, generation: Generation, post: Post) -> Callable[[], None]:
        scenario = parse_request(generation.tables)
        made = run_part(scenario, Side.ES, self.models, post)
        theirs = post.take_lines() or Ledger()
        ledger = join_ledgers(made, theirs, scenario.devices.profiles(scenario.mechanism.sides))
        return partial(generation.finish, outcome_of(scenario.mechanism, ledger), ledger)

    def _tell(self, generation: Generation, tell: Callable[[], None]) -> None:
        if generation.phase == "running":
            try:
                tell()
            except SessionError as error:
                generation.fail("internal", str(error))
        self._wake()

    def _wake(self) -> None:
        for wake in self._wakes.values():
            wake.set()


class _Socket:
    """A connection of Starlette."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    async def frames(self) -> AsyncIterator[bytes]:
        """Each binary message; a text ends the connection."""
        with contextlib.suppress(WebSocketDisconnect, KeyError):
            while True:
                yield await self._websocket.receive_bytes()

    async def send(self, frame: bytes) -> None:
        """One binary message."""
        try:
            await self._websocket.send_bytes(frame)
        except (WebSocketDisconnect, RuntimeError) as error:
            raise ConnectionError("the connection is lost") from error

    async def close(self) -> None:
        """Let go of it."""
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await self._websocket.close()
