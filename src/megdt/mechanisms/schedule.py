"""When everything happens: what a generation has cost, laid out on a clock that starts with it.

A side's processor does one thing at a time. Each direction of the air (up to the ES, down from it,
between UEs) is a band that all packets in it share in equal parts, as under a round robin scheduler
with slots far shorter than packets. (A proportionally fair one gives the same parts wherever
channels do not change while packets wait for each other.) What waits for an answer or for its own processing holds no band. Computing and sending
overlap wherever the graph allows.

Packets of a round are on the air at the same time in the same channel uses: it begins when the last of
them is coded, and takes the band once.

Of kinds whose codec remembers, what a side sends to another goes in order: a feature is encoded when
it is known what became of the one before it. It comes later then, so it is decoded later too, and the
sender encodes one while the receiver decodes the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from megdt.link.energy import DeviceProfile
from megdt.mechanisms.stages import Edge, Mechanism, Stage
from megdt.records import Computation, Crossing, Kind, Ledger, Line, Side

if TYPE_CHECKING:
    import simpy


def make_ledger(
    mechanism: Mechanism,
    lines: Mapping[object, Sequence[Line]],
    devices: Mapping[Side, DeviceProfile],
    *,
    in_order: Collection[Kind] = (),
) -> Ledger:
    """The ledger of a generation, with times and what was drawn idle.

    Args:
        mechanism: In whose order things happen.
        lines: What each stage (by its name) and each edge (by its key) has cost.
        devices: All sides, those included that only wait.
        in_order: Kinds whose codec remembers.
    """
    timed = _Clock(mechanism, lines, in_order).times() if lines else {}
    every = [
        line
        for step in mechanism.steps
        for line in timed.get(step.name if isinstance(step, Stage) else step.key, ())
    ]
    crossings = tuple(line for line in every if isinstance(line, Crossing))
    computations = tuple(line for line in every if isinstance(line, Computation))
    ledger = Ledger(crossings=crossings, computations=computations)
    return replace(ledger, waiting_j=_waiting_j(ledger, devices))


def _waiting_j(ledger: Ledger, devices: Mapping[Side, DeviceProfile]) -> dict[Side, float]:
    """What each side draws while it does nothing, until everything is done."""
    busy_s = dict.fromkeys(devices, 0.0)
    on_air: dict[Side, list[tuple[float, float]]] = {side: [] for side in devices}
    for computation in ledger.computations:
        busy_s[computation.side] += computation.seconds
    for crossing in ledger.crossings:
        for side in (crossing.from_side, crossing.to_side):
            # Its line has the waiting for its own answers; that for the band comes on top.
            on_air[side].append((crossing.start_s, crossing.start_s + crossing.latency_s))
    until = ledger.duration_s
    return {
        side: device.compute_idle_j(max(until - busy_s[side], 0.0))
        + device.radio_idle_j(max(until - _union_s(on_air[side]), 0.0))
        for side, device in devices.items()
    }


def _union_s(spans: Sequence[tuple[float, float]]) -> float:
    """Seconds that at least one span covers."""
    covered, reached = 0.0, 0.0
    for start, end in sorted(spans):
        covered += max(end - max(start, reached), 0.0)
        reached = max(reached, end)
    return covered


def direction(crossing: Crossing) -> str:
    """The band that a packet takes."""
    if not crossing.to_side.is_ue:
        return "up"
    return "down" if not crossing.from_side.is_ue else "between UEs"


class _Band:
    """All that is on the air in one direction, each packet with an equal part of the band."""

    def __init__(self, environment: simpy.Environment) -> None:
        self.environment = environment
        self.left_s: dict[simpy.Event, float] = {}
        """What each packet would still take with the band to itself, by the event of its end."""
        self.since = 0.0
        self.version = 0

    def send(self, airtime_s: float) -> simpy.Event:
        """Put a packet on the air; what is returned happens when it is over."""
        self._catch_up()
        over = self.environment.event()
        self.left_s[over] = airtime_s
        self._go_on()
        return over

    def _catch_up(self) -> None:
        passed = self.environment.now - self.since
        self.since = self.environment.now
        for over in self.left_s:
            self.left_s[over] -= passed / len(self.left_s)

    def _go_on(self) -> None:
        """Until the next packet is over, or another comes."""
        self.version += 1
        if self.left_s:
            next_s = max(min(self.left_s.values()), 0.0) * len(self.left_s)
            self.environment.process(self._end_next(next_s, self.version))

    def _end_next(self, seconds: float, version: int) -> Process:
        yield self.environment.timeout(seconds)
        if version != self.version:
            return  # another one came meanwhile
        self._catch_up()
        least = min(self.left_s.values())
        for over in [o for o, left in self.left_s.items() if left <= least]:
            del self.left_s[over]
            over.succeed()
        self._go_on()


Process = Generator["simpy.Event", Any, None]


@dataclass
class _Round:
    """Packets that are on the air together."""

    begins: simpy.Event
    """When the last of them is coded."""
    to_come: int = 0
    """Packets that are not coded yet."""
    over: simpy.Event | None = None
    """When they have left the air, once they are on it."""


@dataclass
class _Clock:
    """One run of the event queue."""

    mechanism: Mechanism
    lines: Mapping[object, Sequence[Line]]
    in_order: Collection[Kind]

    def times(self) -> dict[object, list[Line]]:
        """The same lines, with the times at which they start and end."""
        import simpy

        self.environment = simpy.Environment()
        self.processors = {s: simpy.Resource(self.environment) for s in self.mechanism.sides}
        self.bands: dict[str, _Band] = {}
        self.timed: dict[object, list[Line]] = {}
        self.ready: dict[object, simpy.Event] = {}
        self.sent = {edge.key: self.environment.event() for edge in self.mechanism.edges}
        self.rounds: dict[str, _Round] = {}
        """By the stage that takes it."""
        for edge in self.mechanism.edges:
            for line in self.lines.get(edge.key, ()):
                if isinstance(line, Crossing) and line.among > 1:
                    begins = self.environment.event()
                    self.rounds.setdefault(edge.target.name, _Round(begins)).to_come += 1
        for step in self.mechanism.steps:
            key = step.name if isinstance(step, Stage) else step.key
            follow: Callable[[Any], Process] = (
                self._stage if isinstance(step, Stage) else self._edge
            )
            self.ready[key] = self.environment.process(follow(step))
        self.environment.run()
        return self.timed

    def _stage(self, stage: Stage) -> Process:
        for name in stage.inputs:
            here = self.mechanism.by_name[name].side == stage.side
            yield self.ready[name if here else (name, stage.side)]
        for line in self.lines.get(stage.name, ()):
            yield from self._compute(stage.name, line)

    def _edge(self, edge: Edge) -> Process:
        yield self.ready[edge.source.name]
        sent = self.sent[edge.key]
        before = self.mechanism.previous.get(edge.key)
        if edge.source.makes not in self.in_order:
            before = None
        if before is not None:
            yield self.sent[before.key]
        for line in self.lines.get(edge.key, ()):
            if isinstance(line, Crossing):
                yield from self._cross(edge, line)
                sent.succeed()
                continue
            yield from self._compute(edge.key, line)
        if not sent.triggered:
            sent.succeed()

    def _compute(self, key: object, line: Line) -> Process:
        assert isinstance(line, Computation)
        with self.processors[line.side].request() as turn:
            yield turn
            self._note(key, replace(line, start_s=self.environment.now))
            yield self.environment.timeout(line.seconds)

    def _cross(self, edge: Edge, line: Crossing) -> Process:
        band = self.bands.setdefault(direction(line), _Band(self.environment))
        together = self.rounds[edge.target.name] if line.among > 1 else None
        if together is not None:
            together.to_come -= 1
            if not together.to_come:
                together.begins.succeed()
            yield together.begins
        started = self.environment.now
        on_air_s = min(line.band_s, line.latency_s)
        yield self.environment.timeout(line.latency_s - on_air_s)
        if together is None:
            yield band.send(on_air_s)
        else:
            together.over = together.over or band.send(on_air_s)
            yield together.over
        self._note(edge.key, replace(line, start_s=started, end_s=self.environment.now))

    def _note(self, key: object, line: Line) -> None:
        self.timed.setdefault(key, []).append(line)
