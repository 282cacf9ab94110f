"""An edge server behind HTTP: sessions over WebSocket, control as JSON, what happens as events.

`/openapi.json` describes the JSON.
"""

import asyncio
import contextlib
import io
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from megdt import __version__
from megdt.errors import MissingExtraError, SessionError, TwinError
from megdt.runtime.edge_server import EdgeServer, busy
from megdt.runtime.following import Follower
from megdt.runtime.pages import add_pages
from megdt.runtime.parcels import split_message
from megdt.runtime.tokens import LIFETIME_S, check, mint

try:
    from fastapi import Depends, FastAPI, HTTPException, Request, Response
    from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
    from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
    from pydantic import BaseModel
    from starlette.websockets import WebSocket, WebSocketDisconnect
except ImportError:
    raise MissingExtraError("an edge server needs fastapi; pip install 'megdt[serve]'") from None

PATH = "/v1/session"
SUBPROTOCOL, TOKEN_PROTOCOL = "megdt.v1", "megdt.token."
"""A web page cannot set headers on a WebSocket: it offers both as subprotocols, the second with its
token after the dot, and the first is taken."""

REQUESTS_PER_S = 20.0
"""Of control by one owner, on average."""
BURST = 40
"""At once."""


class Alive(BaseModel):
    """That the process answers."""

    status: str = "alive"
    version: str = __version__
    bundle: str


class Ready(BaseModel):
    """Whether another session is taken."""

    ready: bool
    sessions: int
    running: int
    begun: int


class Token(BaseModel):
    """A token that lasts for a while."""

    token: str
    expires_in_s: float


class UeStanding(BaseModel):
    """A session."""

    session: str
    owner: str
    device: str
    capabilities: list[str]
    phase: str
    round_trip_s: float | None
    rate_bytes_s: float | None


class RequestStanding(BaseModel):
    """A request and what became of it."""

    number: int
    key: str
    owner: str
    began_s: float
    mechanism: str
    prompt: str
    outcome: str
    seconds: float | None
    bits: int | None
    channel_uses: int | None
    energy_j: float | None
    picture: bool


class World(BaseModel):
    """What of the world may be changed; what is left out stays."""

    extra_loss_db: float | None = None
    speed_m_s: float | None = None
    sky: str | None = None
    weather: str | None = None


class Buckets:
    """How much each owner has asked lately; who asks more is told when to come again."""

    def __init__(self) -> None:
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, owner: str) -> float:
        """Seconds to wait; 0 where it may go on."""
        now = time.monotonic()
        if len(self._left) > 4096:
            self._left.clear()
        left, when = self._left.get(owner, (float(BURST), now))
        left = min(BURST, left + (now - when) * REQUESTS_PER_S)
        if left < 1:
            return (1 - left) / REQUESTS_PER_S
        self._left[owner] = left - 1, now
        return 0.0


def make_app(es: EdgeServer, follower: Follower | None = None) -> FastAPI:
    """The application, for uvicorn or any other ASGI server.

    Args:
        es: That it serves.
        follower: Of the twin that its dashboard shows, if there is one.
    """

    @contextlib.asynccontextmanager
    async def live(_: FastAPI) -> AsyncIterator[None]:
        async with es.live():
            if follower is not None:
                follower.start()
            try:
                yield
            finally:
                if follower is not None:
                    await asyncio.to_thread(follower.stop)

    app = FastAPI(
        title="megdt edge server", version=__version__, lifespan=live, docs_url=None,
        redoc_url=None,
        description="Control of an edge server. Features cross at /v1/session, by docs/protocol.md.",
    )  # fmt: skip
    buckets, bearer = Buckets(), HTTPBearer(auto_error=False)

    def owner(shown: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> str:
        try:
            found = check(es.key, "" if shown is None else shown.credentials)
        except SessionError as error:
            raise HTTPException(
                401, str(error), {"WWW-Authenticate": 'Bearer realm="megdt"'}
            ) from None
        if wait_s := buckets.take(found):
            raise HTTPException(
                429, f"more than {REQUESTS_PER_S:g} requests a second; wait",
                {"Retry-After": _whole(wait_s)},
            )  # fmt: skip
        return found

    owned = Annotated[str, Depends(owner)]

    @app.get("/healthz")
    async def healthz() -> Alive:
        """Whether the process answers."""
        return Alive(bundle=es.models.checksum)

    @app.get("/readyz", responses={503: {"model": Ready}})
    async def readyz(response: Response) -> Ready:
        """Whether another session is taken; 503 where not."""
        if not es.has_room:
            response.status_code = 503
            response.headers["Retry-After"] = "1"
        return Ready(
            ready=es.has_room, sessions=len(es.sessions), running=es.running, begun=es.begun
        )

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Counters, in Prometheus' text format."""
        return Response(es.metrics.text(), media_type="text/plain; version=0.0.4")

    @app.post("/v1/tokens")
    async def renew(who: owned) -> Token:
        """A new token for the same owner."""
        return Token(token=mint(es.key, who), expires_in_s=LIFETIME_S)

    @app.get("/v1/ues")
    async def ues(who: owned) -> list[UeStanding]:
        """Sessions of this ES."""
        return [UeStanding(**row) for row in es.ues()]

    @app.get("/v1/requests")
    async def requests(who: owned) -> list[RequestStanding]:
        """The last requests, the newest last."""
        return [RequestStanding(**job.table()) for job in es.jobs]

    @app.delete("/v1/requests/{key}", status_code=204)
    async def cancel(key: str, who: owned) -> None:
        """Stop a request of one's own."""
        found = [job for job in es.jobs if job.owner == who and job.generation.key == key]
        if not found:
            raise HTTPException(404, f"no request {key} of {who} is remembered; see /v1/requests")
        found[-1].post.stop(SessionError("it was cancelled over HTTP", code="cancelled"))

    @app.get("/v1/requests/{number}/picture", response_class=Response)
    async def picture(number: int, who: owned) -> Response:
        """What the ES has made of a request, as PNG."""
        found = [job for job in es.jobs if job.number == number and job.picture is not None]
        if not found:
            raise HTTPException(404, f"no picture of request {number} is kept; see /v1/requests")
        return Response(await asyncio.to_thread(_png, found[0].picture), media_type="image/png")

    @app.get("/v1/events", response_class=StreamingResponse)
    async def events(request: Request, who: owned) -> StreamingResponse:
        """Server-sent events: a `snapshot`, then `ues`, `request` and `twin` whenever they change."""
        first = {
            "ues": es.ues(),
            "requests": [job.table() for job in es.jobs],
            "twin": [] if follower is None else [seen.table for seen in tuple(follower.seen)],
            "world": None if follower is None else follower.world(),
        }
        return StreamingResponse(es.feed.watch(first), media_type="text/event-stream")

    if follower is not None:
        _add_twin(app, follower, owner)
    add_pages(app, es.variant)

    @app.websocket(PATH)
    async def session(websocket: WebSocket) -> None:
        await _serve(es, websocket)

    return app


def _add_twin(app: FastAPI, follower: Follower, owner: Callable[..., str]) -> None:
    """The twin that is followed: its rounds, and the world that may be changed."""
    owned = Annotated[str, Depends(owner)]

    @app.get("/v1/twin")
    async def twin(who: owned) -> list[dict[str, Any]]:
        """The rounds that can be looked back at, the newest last."""
        return [seen.table for seen in tuple(follower.seen)]

    @app.get("/v1/twin/{number}/{what}", response_class=Response)
    async def view(number: int, what: Literal["replica", "world"], who: owned) -> Response:
        """The panorama of a round, as the twin knew it or as it was."""
        for seen in tuple(follower.seen):
            if seen.table["round"] == number:
                return Response(getattr(seen, what), media_type="image/webp")
        raise HTTPException(404, f"round {number} is not kept; see /v1/twin")

    @app.post("/v1/twin/world")
    async def change(world: World, who: owned) -> World:
        """Change the world, from the next round on."""
        try:
            follower.change(**world.model_dump(exclude_none=True))
        except TwinError as error:
            raise HTTPException(422, str(error)) from None
        return World(**follower.world())


async def _serve(es: EdgeServer, websocket: WebSocket) -> None:
    offered = websocket.scope.get("subprotocols", [])
    try:
        _check_origin(es, websocket)
        token = next((p for p in offered if p.startswith(TOKEN_PROTOCOL)), "")
        header = websocket.headers.get("authorization", "").removeprefix("Bearer ")
        who = check(es.key, token.removeprefix(TOKEN_PROTOCOL) or header)
        if not es.has_room:
            raise busy(es)
    except SessionError as error:
        es.metrics.refused.labels(error.code).inc()
        status = {"token": 401, "origin": 403}.get(error.code, 503)
        headers = (
            {} if error.retry_after_s is None else {"Retry-After": _whole(error.retry_after_s)}
        )
        refusal = JSONResponse({"code": error.code, "message": str(error)}, status, headers)
        await websocket.send_denial_response(refusal)
        return
    await websocket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
    connection = _Socket(websocket)
    try:
        async with asyncio.timeout(es.sessions.limits.greeting_s):
            first = await websocket.receive_bytes()
    except (TimeoutError, WebSocketDisconnect, KeyError):
        await connection.close()
        return
    await es.serve(connection, next(split_message(first), b""), owner=who)
    await connection.close()


def _check_origin(es: EdgeServer, websocket: WebSocket) -> None:
    """See that no other web page opens a session with what a browser knows."""
    origin = websocket.headers.get("origin")
    if origin is None or origin in es.origins:
        return
    if urlsplit(origin).netloc != websocket.headers.get("host"):
        raise SessionError(
            f"page {json.dumps(origin)} is not of this ES; start it with --origin {origin}",
            code="origin",
        )


def _whole(seconds: float) -> str:
    return str(max(1, round(seconds)))


def _png(picture: Any) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


class _Socket:
    """A connection of Starlette."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket

    async def messages(self) -> AsyncIterator[bytes]:
        """Each binary message; a text ends the connection."""
        with contextlib.suppress(WebSocketDisconnect, KeyError):
            while True:
                yield await self._websocket.receive_bytes()

    async def send(self, message: bytes) -> None:
        """One binary message."""
        try:
            await self._websocket.send_bytes(message)
        except (WebSocketDisconnect, RuntimeError) as error:
            raise ConnectionError("the connection is lost") from error

    async def close(self) -> None:
        """Let go of it."""
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await self._websocket.close()
