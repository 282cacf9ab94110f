"""A UE and an ES in one process, with a connection between them that can be cut after any frame."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from megdt.link.energy import load_profile
from megdt.records import Computation, Delivery, Ledger, Packet, Side
from megdt.runtime import messages
from megdt.runtime.contents import Content
from megdt.runtime.es_session import EsSession, Sessions
from megdt.runtime.events import (
    Answered,
    Event,
    Failed,
    FeatureArrived,
    Requested,
    StatesCompared,
)
from megdt.runtime.limits import Limits
from megdt.runtime.ue_session import UeSession

BUNDLE = "ab" * 32
TABLES: messages.Tables = {"request": {"prompt": "red poppies", "rng_seed": 7}}
WAITS: messages.Tables = {"request": {"prompt": "red poppies"}, "plan": {"mechanism": "ue_to_es"}}
"""For these the ES waits for a feature of the UE."""
SMALL = Limits(
    frame_bytes=4096, chunk_bytes=100, window_bytes=1000, queue_bytes=5000,
    replay_bytes=8192, ack_bytes=300, parcel_bytes=500,
)  # fmt: skip
LEDGER = Ledger(
    computations=(
        Computation(
            stage="denoise", task="run", side=Side.ES, seconds=0.5, measured_s=0.25, energy_j=3.0
        ),
    ),
    waiting_j={Side.UE: 0.125},
)


def make_ue(limits: Limits | None = None, bundle: str = BUNDLE) -> UeSession:
    return UeSession(
        bundle=bundle, device=load_profile("phone"), capabilities=["fp16"], limits=limits
    )


def make_es(limits: Limits | None = None) -> Sessions:
    return Sessions(bundle=BUNDLE, capabilities=["denoise"], limits=limits)


@dataclass
class EsApp:
    """Makes of a request what follows from it alone, and counts how often."""

    sessions: Sessions
    size_bytes: int = 950
    executed: Counter[str] = field(default_factory=Counter)
    events: list[Event] = field(default_factory=list)

    def take(self, events: Iterable[Event], session: EsSession, now_s: float) -> None:
        for event in events:
            self.events.append(event)
            if isinstance(event, Requested) and "plan" not in event.generation.tables:
                self.execute(event.generation, b"")
            elif isinstance(event, FeatureArrived):
                session.release(event.size_bytes, now_s)
                generation = self.sessions.generations.get(session.owner, event.key)
                assert generation is not None
                if generation.phase == "running":
                    self.execute(generation, event.content.payload)

    def execute(self, generation: Any, payload: bytes) -> None:
        self.executed[generation.key] += 1
        drawn = np.random.default_rng(len(payload)).bytes(self.size_bytes - len(payload))
        made = Packet(payload=payload[::-1] + drawn)
        generation.send_feature(made, source="denoise", to_side=Side.UE, kind="seed")
        symbols = np.arange(20, dtype=np.complex64) * (1 + 2j)
        noise = np.linspace(0, 1, 20, dtype=np.float32)
        heard = Delivery(symbols=symbols, noise_power=noise, among=2)
        generation.send_feature(heard, source="share", to_side=Side.UE, kind="observation")
        generation.tell_state("fuse", b"12345678")
        generation.finish("delivered", LEDGER)


@dataclass
class UeApp:
    """Keeps what it gets."""

    session: UeSession
    reads: bool = True
    """Whether it releases what has come."""
    events: list[Event] = field(default_factory=list)

    def take(self, events: Iterable[Event], now_s: float) -> None:
        for event in events:
            self.events.append(event)
            if isinstance(event, FeatureArrived) and self.reads:
                self.session.release(event.size_bytes, now_s)

    def of(self, kind: type[Event]) -> list[Any]:
        return [e for e in self.events if isinstance(e, kind)]

    @property
    def features(self) -> list[tuple[str, str, Content]]:
        return [(e.key, e.source, e.content) for e in self.of(FeatureArrived)]


@dataclass
class Wire:
    """The connection, and the clock. What it loses is what was on it when it was cut."""

    app: EsApp
    ue: UeApp
    owner: str = "ue-1"
    now_s: float = 0.0
    carried: int = 0
    """Frames, both ways, hellos too."""
    es: EsSession | None = None
    watch: Callable[[str, bytes], None] = lambda to, frame: None

    def connect(self) -> None:
        self.es = None
        self.ue.session.connect(self.now_s)

    def cut(self) -> None:
        self.ue.session.cut(self.now_s)
        if self.es is not None:
            self.es.cut(self.now_s)
        self.es = None

    def carry(
        self, cut_after: int | None = None, *, frames: float = math.inf, both: bool = True
    ) -> bool:
        """Carry all that goes now; False where the connection was cut meanwhile.

        Args:
            cut_after: Frames in all, after which the next one is lost with the connection.
            frames: To carry now.
            both: Whether the ES's frames are read as well.
        """
        moved, frames = True, frames + self.carried
        while moved and self.carried < frames:
            moved = False
            while self.carried < frames and (frame := self.ue.session.next_frame(self.now_s)):
                if self.carried == cut_after:
                    return False
                self.carried, moved = self.carried + 1, True
                self.watch("ES", frame)
                if self.es is None:
                    self.es, events = self.app.sessions.accept(
                        frame, self.now_s, owner=self.owner, new_id=f"session-{id(self)}"
                    )
                else:
                    events = self.es.receive(frame, self.now_s)
                self.app.take(events, self.es, self.now_s)
            while both and self.es and self.carried < frames:
                frame = self.es.next_frame(self.now_s)
                if frame is None:
                    break
                if self.carried == cut_after:
                    return False
                self.carried, moved = self.carried + 1, True
                self.watch("UE", frame)
                self.ue.take(self.ue.session.receive(frame, self.now_s), self.now_s)
        return True

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and carry what it brings."""
        self.now_s += seconds
        self.app.events += self.app.sessions.tick(self.now_s)
        self.ue.take(self.ue.session.tick(self.now_s), self.now_s)
        if self.es is not None:
            self.app.take(self.es.tick(self.now_s), self.es, self.now_s)
        self.carry()


def make_wire(limits: Limits | None = None, app: EsApp | None = None, **settings: Any) -> Wire:
    app = EsApp(make_es(limits)) if app is None else app
    return Wire(app=app, ue=UeApp(make_ue(limits)), **settings)


UPLOAD = Packet(payload=bytes(range(250)))


def bits(content: Content) -> tuple[Any, ...]:
    """All that came, to the bit."""
    return tuple(
        (name, np.asarray(getattr(content, name)).tobytes())
        for name in ("payload", "symbols", "noise_power", "outcome", "among")
        if getattr(content, name, None) is not None
    )


def told(ue: UeApp) -> list[Any]:
    """What the UE has been told of its requests, in order."""
    found: list[Any] = []
    for event in ue.events:
        if isinstance(event, FeatureArrived):
            found.append((event.key, event.source, event.kind, bits(event.content)))
        elif isinstance(event, Answered | Failed | StatesCompared):
            found.append(event)
    return found


def begin(wire: Wire, key: str = "k", tables: messages.Tables = WAITS) -> Wire:
    """Ask, and send what the ES waits for."""
    session = wire.ue.session
    session.ask(key, tables, deadline_s=100, now_s=wire.now_s)
    if "plan" in tables:
        session.send_lines(key, LEDGER)
        session.tell_state(key, "fuse", b"12345678")
        session.send_feature(key, UPLOAD, source="encode", to_side=Side.ES, kind="seed")
    return wire


def uncut() -> Wire:
    wire = begin(make_wire(SMALL))
    wire.connect()
    wire.carry()
    return wire


def mend(wire: Wire) -> None:
    """Connect again, until all has come."""
    wire.connect()
    wire.carry()
    wire.pass_time(1)
