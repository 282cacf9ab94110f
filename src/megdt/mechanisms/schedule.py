"""When everything happens: what a generation has cost, laid out on a clock that starts with it.

A side's processor does one thing at a time. Each direction of the air (up to the ES, down from it,
between UEs) is a band that all packets in it share: slot by slot in turn, as under a round robin
scheduler. What waits for an answer or for its own processing holds no band. Computing and sending
overlap wherever the graph allows.

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

SLOT_S = 1e-3
"""For which a packet has its band to itself, before it is another one's turn."""


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
            on_air[side].append((crossing.start_s, crossing.end_s))
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


Process = Generator["simpy.Event", Any, None]


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
        self.bands: dict[str, simpy.Resource] = {}
        self.timed: dict[object, list[Line]] = {}
        self.ready: dict[object, simpy.Event] = {}
        self.sent = {edge.key: self.environment.event() for edge in self.mechanism.edges}
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
                yield from self._cross(edge.key, line)
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

    def _cross(self, key: object, line: Crossing) -> Process:
        import simpy

        band = self.bands.setdefault(direction(line), simpy.Resource(self.environment))
        started = self.environment.now
        left = min(line.airtime_s, line.latency_s)
        yield self.environment.timeout(line.latency_s - left)
        while left > 0:
            with band.request() as turn:
                yield turn
                # Alone in the band it keeps it.
                spent = min(left, SLOT_S) if band.queue else left
                yield self.environment.timeout(spent)
            left -= spent
        self._note(key, replace(line, start_s=started, end_s=self.environment.now))

    def _note(self, key: object, line: Line) -> None:
        self.timed.setdefault(key, []).append(line)
