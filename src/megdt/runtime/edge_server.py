"""The edge server: many UEs' sessions, and the ES's side of each request in a thread.

`api.py` puts it behind HTTP and WebSocket:

    es = EdgeServer(Bundle(), key="a secret")
    uvicorn.run(make_app(es))
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Semaphore
from typing import TYPE_CHECKING, Any

from megdt.errors import MegdtError, SessionError
from megdt.mechanisms.execute import Progress
from megdt.mechanisms.stages import Edge
from megdt.records import Delivery, Ledger, Packet, Side
from megdt.runtime.driving import Connection, clock, drive
from megdt.runtime.es_session import EsSession, Sessions
from megdt.runtime.events import (
    Cancelled,
    Event,
    Expired,
    FeatureArrived,
    LinesArrived,
    Requested,
    StatesCompared,
)
from megdt.runtime.feed import Feed
from megdt.runtime.generations import RETRY_AFTER_S, Generation
from megdt.runtime.limits import Limits
from megdt.runtime.messages import FailureCode, as_code
from megdt.runtime.metrics import Metrics
from megdt.runtime.scanning import Frame
from megdt.runtime.sides import (
    Post,
    join_ledgers,
    outcome_of,
    parse_request,
    run_part,
    senses,
    states_of,
)
from megdt.runtime.views import Views

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from megdt.mechanisms.stages import StoredModels
    from megdt.scenario import Model

KEPT = 32
"""Requests that are remembered with what was made here, for those who look."""

log = logging.getLogger("megdt.es")


@dataclass
class Job:
    """A request, as those see it who look on."""

    generation: Generation
    post: Post
    number: int
    owner: str
    began_s: float = field(default_factory=time.time)
    """Since 1970."""
    mechanism: str = ""
    prompt: str = ""
    outcome: str = "running"
    """What became of it; the code of its failure where it has no result."""
    seconds: float | None = None
    ledger: Ledger | None = None
    picture: NDArray[Any] | None = None
    """Made here, if its mechanism makes one at the ES. [height, width, 3]"""

    def table(self) -> dict[str, Any]:
        """As JSON carries it."""
        ledger = self.ledger
        return {
            "number": self.number,
            "key": self.generation.key,
            "owner": self.owner,
            "began_s": self.began_s,
            "mechanism": self.mechanism,
            "prompt": self.prompt,
            "outcome": self.outcome,
            "seconds": self.seconds,
            "bits": None if ledger is None else ledger.bits,
            "channel_uses": None if ledger is None else ledger.channel_uses,
            "energy_j": None if ledger is None else ledger.energy_j,
            "picture": self.picture is not None,
        }


class EdgeServer:
    """Runs the ES's side of what UEs ask for.

    Args:
        models: Of the ES.
        model: Whose they are; the bundle's where left out.
        key: That its tokens are made with; see `tokens.mint`.
        workers: Requests that compute at once.
        limits: Of this end.
        origins: Web pages that may open sessions, besides those that this server shows, such as
            https://example.org.
        variant: Folder of `megdt compress`, whose models browsers are given.
    """

    def __init__(
        self, models: StoredModels, *, key: str, model: Model | None = None, workers: int = 1,
        limits: Limits | None = None, origins: tuple[str, ...] = (), variant: Path | None = None,
    ) -> None:  # fmt: skip
        self.models, self.model, self.key, self.origins = models, model, key, origins
        self.variant = variant
        self.begun = 0
        """Requests whose ES side was begun; one that comes again is not."""
        self.sessions = Sessions(bundle=models.checksum, limits=limits)
        self.feed, self.metrics = Feed(), Metrics()
        self.views = Views(self.sessions.limits.view_bytes)
        self.jobs: deque[Job] = deque(maxlen=KEPT)
        """The last ones, the newest last."""
        self.stopping = False
        # A request that waits for its UE keeps its thread and lets another one compute.
        threads = self.sessions.limits.running
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="megdt-es")
        self._turns = Semaphore(workers)
        self._running: dict[Generation, Job] = {}
        self._wakes: dict[EsSession, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.metrics.watch("megdt_sessions", "Sessions, cut ones too.", lambda: len(self.sessions))
        self.metrics.watch("megdt_running", "Requests that run.", lambda: len(self._running))

    @property
    def running(self) -> int:
        """Requests that run."""
        return len(self._running)

    @property
    def has_room(self) -> bool:
        """Whether another session is taken."""
        return not self.stopping and len(self.sessions) < self.sessions.limits.sessions

    def ues(self) -> list[dict[str, Any]]:
        """All sessions, as JSON carries them."""
        return [
            {
                "session": session.id[:8],
                "owner": session.owner,
                "device": "" if session.device is None else session.device.name,
                "capabilities": list(session.capabilities),
                "phase": session.phase,
                "round_trip_s": session.round_trip_s,
                "rate_bytes_s": session.rate_bytes_s,
            }
            for session in self.sessions
        ]

    @contextlib.asynccontextmanager
    async def live(self, _: object = None) -> AsyncIterator[None]:
        """The lifespan of its application."""
        ticking = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            ticking.cancel()
            for job in self._running.values():
                job.post.stop(SessionError("this ES stops", code="leaving"))
            self._pool.shutdown(wait=True, cancel_futures=True)

    async def drain(self, within_s: float) -> None:
        """Take nothing new, finish what runs, and tell every UE; or stop waiting.

        Args:
            within_s: What it may take.
        """
        self.stopping = True
        log.info("draining", extra={"running": self.running, "sessions": len(self.sessions)})
        self.sessions.close()
        self._wake()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._running or any(s.phase in ("open", "leaving") for s in self.sessions):
                    await asyncio.sleep(0.02)

    async def _tick(self) -> None:
        """See to deadlines, and forget sessions that are cut for too long."""
        while True:
            for event in self.sessions.tick(clock()):
                self._handle(None, event)
            await asyncio.sleep(min(max(self.sessions.wake_s - clock(), 0.01), 0.25))

    async def serve(self, connection: Connection, hello: Frame, *, owner: str) -> None:
        """Carry a session over a connection, until one of them is over.

        Args:
            connection: Whose first frame has come.
            hello: That frame. The UE says nothing more before it is answered.
            owner: Who the UE has shown to be.
        """
        session, events = self.sessions.accept(
            hello, clock(), owner=owner, new_id=secrets.token_urlsafe(24)
        )
        told = {"owner": owner, "session": session.id[:8], "connection": session.connections}
        log.info("connected", extra=told)
        wake = self._wakes.setdefault(session, asyncio.Event())
        wake.set()  # an old connection of it ends
        handle = partial(self._handle, session)
        for event in events:
            handle(event)
        self.feed.tell("ues", self.ues())
        number = session.connections
        await drive(session, connection, handle, wake)
        if session.phase == "closed" or session.connections == number:
            self._wakes.pop(session, None)
        log.info(
            "disconnected", extra=told | {"phase": session.phase, "error": _told(session.error)}
        )
        self.feed.tell("ues", self.ues())

    def _handle(self, session: EsSession | None, event: Event) -> None:
        if isinstance(event, Requested) and session is not None:
            self._begin(event.generation, session)
        elif isinstance(event, Cancelled | Expired):
            if (job := self._running.get(event.generation)) is not None:
                job.post.stop(SessionError("nobody waits for it any more", code="cancelled"))
            self._wake()
        elif isinstance(event, StatesCompared):
            self.metrics.states.labels("yes" if event.same else "no").inc()
            if not event.same:
                log.warning("copies differ", extra={"key": event.key, "stage": event.stage})
        elif isinstance(event, FeatureArrived | LinesArrived) and session is not None:
            generation = self.sessions.generations.get(session.owner, event.key)
            job = None if generation is None else self._running.get(generation)
            if isinstance(event, FeatureArrived):
                session.release(event.size_bytes, clock())
                self.metrics.bits.labels("up").inc(8 * len(event.content.payload))
                if job is not None:
                    job.post.deliver(event)
            elif job is not None:
                job.post.deliver_lines(event.ledger)

    def _begin(self, generation: Generation, session: EsSession) -> None:
        self.begun += 1
        loop = asyncio.get_running_loop()

        def send(edge: Edge, sent: Packet | Delivery) -> None:
            self.metrics.bits.labels("down").inc(8 * len(sent.payload))
            tell = partial(
                generation.send_feature, sent, source=edge.source.name,
                to_side=edge.target.side, kind=edge.source.makes,
            )  # fmt: skip
            loop.call_soon_threadsafe(self._tell, generation, tell)

        left_s = max(generation.deadline_at_s - clock(), 0.0)
        post = Post(Side.ES, send, deadline_s=left_s, turns=self._turns)
        job = Job(generation=generation, post=post, number=self.begun, owner=session.owner)
        self._running[generation] = job
        self.jobs.append(job)
        task = loop.create_task(self._make(job, lambda: session.rate_bytes_s))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _make(self, job: Job, rate_bytes_s: Callable[[], float | None]) -> None:
        """Run the ES's side in a thread and tell its end."""
        loop, generation = asyncio.get_running_loop(), job.generation
        self.feed.tell("request", job.table())
        try:
            end = await loop.run_in_executor(self._pool, partial(self._run, job, rate_bytes_s))
        except SessionError as error:
            code: FailureCode = as_code(error, FailureCode, "internal")
            job.outcome = code
            end = partial(generation.fail, code, str(error))
        except MegdtError as error:
            job.outcome = "request"
            end = partial(generation.fail, "request", str(error))
        except Exception as error:
            job.outcome = "internal"
            log.exception("a request has failed", extra={"owner": job.owner, "key": generation.key})
            end = partial(generation.fail, "internal", f"the ES has failed: {type(error).__name__}")
        del self._running[generation]
        job.seconds = time.time() - job.began_s
        self._tell(generation, end)
        self.metrics.requests.labels(job.outcome).inc()
        self.metrics.seconds.observe(job.seconds)
        self.feed.tell("request", job.table())
        told = {key: value for key, value in job.table().items() if key != "prompt"}
        log.info("request", extra=told)

    def _run(self, job: Job, rate_bytes_s: Callable[[], float | None]) -> Callable[[], None]:
        asked = parse_request(job.generation.tables, self.model)
        scenario = asked.scenario
        job.mechanism, job.prompt = scenario.mechanism.name, scenario.request.prompt
        with self._turns:
            job.post.check()
            made = run_part(
                asked, Side.ES, self.models, job.post, view=self.views.recall(job.owner),
                rate_bytes_s=rate_bytes_s,
            )  # fmt: skip
            theirs = job.post.take_lines() or Ledger()
        ledger = join_ledgers(made, theirs, scenario.devices.profiles(scenario.mechanism.sides))
        outcome = outcome_of(scenario.mechanism, ledger)
        job.outcome, job.ledger, job.picture = outcome, ledger, _last_picture(made)
        if job.picture is not None and any(s.side.is_ue for s in senses(scenario.mechanism)):
            self.views.remember(job.owner, job.picture)

        def end() -> None:
            for stage, state in states_of(made).items():
                job.generation.tell_state(stage, state)
            job.generation.finish(outcome, ledger)

        return end

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


def busy(server: EdgeServer) -> SessionError:
    """What who finds no room is told."""
    what = "stops" if server.stopping else f"has {len(server.sessions)} sessions, its most"
    return SessionError(
        f"this ES {what}; try again later", code="full", retry_after_s=RETRY_AFTER_S
    )


def _last_picture(made: Progress) -> NDArray[Any] | None:
    stages = made.execution.mechanism.stages
    pictures = [
        made.features[stage.name].values for stage in stages
        if stage.side == Side.ES and stage.makes == "image" and stage.name in made.features
    ]  # fmt: skip
    return pictures[-1] if pictures else None


def _told(error: SessionError | None) -> str | None:
    return None if error is None else str(error)
