"""One stage run, one feature taken over the air, and what each has cost.

Nothing here knows in which order, in which thread or in which process that is done: `simulate` runs
all sides of a mechanism, `run_side` one of them.
"""

from __future__ import annotations

import copy
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Literal, Protocol, TypeVar

import numpy as np

from megdt.codecs import Codec
from megdt.errors import MechanismError, MissedError
from megdt.link import Link
from megdt.link.energy import DeviceProfile
from megdt.mechanisms.stages import (
    Edge,
    Job,
    Mechanism,
    Models,
    Stage,
    StageProgress,
    models_at,
)
from megdt.records import (
    Computation,
    Crossing,
    Delivery,
    Feature,
    Kind,
    Line,
    Outcome,
    Packet,
    Request,
    Side,
)

Entry = TypeVar("Entry", Codec, Link)

CoreSeconds = Callable[[Side, str], float]
"""What a task of a side, such as "encode seed" or "run", takes a processor core."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """All that the stages of one generation share; see `simulate` for the arguments."""

    mechanism: Mechanism
    request: Request
    models: Models
    codecs: Mapping[Kind, Codec]
    links: Mapping[Kind, Link]
    devices: Mapping[Side, DeviceProfile]
    progress: StageProgress | None = None
    core_s: CoreSeconds | None = None
    _ends: dict[tuple[Kind, Side, Side, str], Codec] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Copies of the codecs that remember, one for each end of what a side sends to another."""

    def __post_init__(self) -> None:
        order = {stage.name: at for at, stage in enumerate(self.mechanism.stages)}
        for edge in self.mechanism.edges:
            before = self.before(edge)
            if before is not None and order[before.source.name] > order[edge.source.name]:
                raise MechanismError(
                    f"{edge.source.makes} of {before.source.name} ({before.source.side}) is taken "
                    f"before that of {edge.source.name} and made after it, and its codec tells each "
                    "by the one before; list the stages that take them in the order of those that "
                    "make them"
                )
        for stage in self.mechanism.stages:
            if stage.side not in self.devices:
                raise MechanismError(
                    f"stage {stage.name!r} of {self.mechanism.name} runs on {stage.side}, and the "
                    f"devices are of {', '.join(self.devices) or 'no side'}; say what "
                    f"{stage.side} is"
                )

    @cached_property
    def in_order(self) -> frozenset[Kind]:
        """Kinds whose codec remembers: what a side sends to another of them goes in order."""
        return frozenset(k for k, codec in self.codecs.items() if _remembers(codec))

    def before(self, edge: Edge) -> Edge | None:
        """What has to be over before an edge's feature is encoded, besides its being made."""
        return self.mechanism.previous.get(edge.key) if edge.source.makes in self.in_order else None

    def run(
        self, stage: Stage, inputs: Sequence[Feature | None]
    ) -> tuple[Feature | None, list[Line]]:
        """Run a stage; None where it makes nothing this time.

        Raises:
            MechanismError: If it makes another kind of feature than it says.
        """
        tell = partial(self.progress, stage.name) if self.progress is not None else None
        models = models_at(self.models, stage.side)
        job = Job(request=self.request, models=models, side=stage.side, progress=tell)
        with _Watch(self.models) as watch:
            feature = stage.run(job, *inputs)
        if feature is not None and feature.kind != stage.makes:
            raise MechanismError(
                f"stage {stage.name!r} of {self.mechanism.name} made a {feature.kind}, it says it "
                f"makes a {stage.makes}; mend the stage"
            )
        return feature, [self._charge(stage, "run", stage.side, watch)]

    def encode(self, edge: Edge, feature: Feature) -> tuple[Packet, list[Line]]:
        """Encode a feature.

        Raises:
            MechanismError: If there is no codec for it.
        """
        source, target = edge.source, edge.target
        transmitter = self._codec(edge, "sender")
        # A copy: what is judged later is what was made, not what a codec has left of it.
        given = copy.deepcopy(feature)
        with _Watch(transmitter) as watch:
            packet = _bare(transmitter.encode(given))
        encoded = self._charge(
            target, f"encode {source.makes}", source.side, watch, source=source.name
        )
        values = feature.values.size if isinstance(feature.values, np.ndarray) else 0
        return replace(packet, values=values), [encoded]

    def carry(self, edge: Edge, packet: Packet) -> tuple[Delivery, list[Line]]:
        """Give a packet to the link.

        Raises:
            MechanismError: If there is no link for it.
        """
        source, target = edge.source, edge.target
        transmitter = self._codec(edge, "sender")
        delivery = self._link(edge).send(
            packet, air_rng(self.request, source.side, target.side, edge.number)
        )
        if delivery.outcome != "delivered" and _remembers(transmitter):
            # The sender knows by the acknowledgements that failed, which the link has charged.
            transmitter.ask_key()  # type: ignore[attr-defined]
        sender, taker = self.devices[source.side], self.devices[target.side]
        waiting_s = max(delivery.latency_s - delivery.airtime_s - delivery.feedback_s, 0.0)
        sender_j = (
            sender.transmit_j(delivery.airtime_s, delivery.radiated_j)
            + sender.receive_j(delivery.feedback_s)
            + sender.radio_idle_j(waiting_s)
        )
        receiver_j = (
            taker.receive_j(max(delivery.airtime_s, delivery.round_s))
            + taker.transmit_j(delivery.feedback_s, delivery.feedback_radiated_j)
            + taker.radio_idle_j(waiting_s)
        ) / delivery.among  # it listens once to all of a round
        crossing = Crossing(
            source=source.name,
            target=target.name,
            from_side=source.side,
            to_side=target.side,
            kind=source.makes,
            codec=repr(transmitter),
            outcome=delivery.outcome,
            values=packet.values,
            bits=packet.bits,
            header_bits=delivery.header_bits,
            uses=delivery.uses,
            blocks=delivery.blocks,
            failed_first=delivery.failed_first,
            airtime_s=delivery.airtime_s,
            latency_s=delivery.latency_s,
            radiated_j=delivery.radiated_j,
            sender_j=sender_j,
            receiver_j=receiver_j,
            among=delivery.among,
            round_s=delivery.round_s,
        )
        return delivery, [crossing]

    def echo(self, edge: Edge, taker: Stage, feature: Feature) -> tuple[Feature, list[Line]]:
        """What the other side has of a feature if nothing happens to it on the air.

        Args:
            edge: By which it is sent.
            taker: The stage on its own side that takes it like that.
            feature: As it was made.

        Raises:
            MechanismError: If its codec sends symbols, of which no two receivers have the same, or
                remembers.
        """
        if edge.source.makes in self.in_order:
            raise MechanismError(
                f"{feature.kind} of {edge.source.name} ({edge.source.side}) is taken as sent, and "
                f"codec {self.codecs[feature.kind]!r} tells it by what was sent before; take a codec "
                "that does not remember"
            )
        packet = self._codec(edge, "sender").encode(copy.deepcopy(feature))
        if packet.symbols is not None:
            raise MechanismError(
                f"{feature.kind} of {edge.source.name} ({edge.source.side}) is taken as sent, and "
                f"codec {self.codecs[feature.kind]!r} sends symbols, which arrive as the air leaves "
                "them; take a codec of bits"
            )
        receiver = self._codec(edge, "receiver")
        with _Watch(receiver) as watch:
            echoed = receiver.decode(Delivery(payload=bytes(packet.payload)))
        task = f"decode {feature.kind}"
        return echoed, [self._charge(taker, task, taker.side, watch, source=edge.source.name)]

    def receive(self, edge: Edge, delivery: Delivery) -> tuple[Feature, list[Line]]:
        """Decode what has been delivered.

        Raises:
            MissedError: If it is told by a feature before it that did not come.
        """
        receiver = self._codec(edge, "receiver")
        with _Watch(receiver) as watch:
            feature = receiver.decode(delivery)
        # What has added up is decoded once, here piece by piece.
        watch.seconds, watch.flops = (n / delivery.among for n in (watch.seconds, watch.flops))
        source, target = edge.source, edge.target
        task = f"decode {source.makes}"
        return feature, [self._charge(target, task, target.side, watch, source=source.name)]

    def _codec(self, edge: Edge, end: Literal["sender", "receiver"]) -> Codec:
        """A fresh copy, or for one that remembers the copy that this end has used before."""
        kind = edge.source.makes
        kept = self._ends.get((kind, edge.source.side, edge.target.side, end))
        if kept is not None:
            return kept
        codec = _of_edge(self.codecs, edge, "codec")
        # Each end has its own, as on two machines: what one remembers is not sent to the other.
        own = copy.deepcopy(codec)
        if own is codec and getattr(codec, "__dict__", None):
            raise MechanismError(
                f"codec {codec!r} is its own copy, so it could pass features by the link; "
                "let copy.deepcopy make another"
            )
        if kind in self.in_order:
            self._ends[kind, edge.source.side, edge.target.side, end] = own
        return own

    def _link(self, edge: Edge) -> Link:
        return _of_edge(self.links, edge, "link")

    def _charge(
        self, stage: Stage, task: str, side: Side, watch: _Watch, *, source: str | None = None
    ) -> Computation:
        device, flops = self.devices[side], watch.flops
        # Who counts no operations ran on a processor core, for as long as was measured here or before.
        core_s = watch.seconds if self.core_s is None else self.core_s(side, task)
        seconds = device.compute_s(flops) if flops else core_s
        return Computation(
            stage=stage.name,
            task=task,
            source=source,
            side=side,
            seconds=seconds,
            measured_s=watch.seconds,
            flops=flops,
            energy_j=device.compute_j(seconds) if flops else device.core_j(seconds),
        )


def _of_edge(table: Mapping[Kind, Entry], edge: Edge, what: str) -> Entry:
    kind = edge.source.makes
    if kind not in table:
        raise MechanismError(
            f"{kind} crosses from {edge.source.name} ({edge.source.side}) to "
            f"{edge.target.name} ({edge.target.side}) and the plan has no {what} for it; "
            f"it has {', '.join(sorted(table)) or 'none'}"
        )
    return table[kind]


def _remembers(codec: Codec) -> bool:
    return bool(getattr(codec, "remembers", False))


class _Watch:
    """What goes by while something runs: seconds, and the operations that who runs it counts."""

    def __init__(self, counter: object) -> None:
        self._counter = counter

    def __enter__(self) -> _Watch:
        self._flops = float(getattr(self._counter, "flops", 0.0))
        self._started = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds = time.perf_counter() - self._started
        self.flops = float(getattr(self._counter, "flops", 0.0)) - self._flops


def _bare(packet: Packet) -> Packet:
    """The packet's bits and symbols, without anything else that its objects might carry."""
    symbols = None if packet.symbols is None else np.array(packet.symbols)
    return Packet(
        payload=bytes(memoryview(packet.payload)), symbols=symbols, told_snr=bool(packet.told_snr)
    )


def air_rng(request: Request, source: Side, target: Side, number: int) -> np.random.Generator:
    """Draws channel and noise of the `number`-th packet from source to target.

    The same for every mechanism and codec, so that what is compared meets the same channel.
    """
    direction = zlib.crc32(f"{source}->{target}".encode())
    return np.random.default_rng((request.rng_seed, direction, number))


@dataclass(kw_only=True)
class Progress:
    """What has been made and what has arrived so far, and why the rest has not."""

    execution: Execution
    features: dict[str, Feature] = field(default_factory=dict)
    arrived: dict[tuple[str, Side], Feature] = field(default_factory=dict)
    missing: dict[object, Outcome] = field(default_factory=dict)
    """By name of a stage, or key of an edge."""
    lines: dict[object, list[Line]] = field(default_factory=dict)

    def inputs(self, stage: Stage) -> list[Feature | None] | None:
        """What a stage takes; None where it cannot go on, and then it is missing too."""
        by_name = self.execution.mechanism.by_name
        found: list[Feature | None] = []
        for name in stage.inputs:
            here = by_name[name].side == stage.side
            key = name if here else (name, stage.side)
            feature = self.features.get(name) if here else self.arrived.get((name, stage.side))
            if feature is None and name not in stage.optional:
                self.missing[stage.name] = self.missing[key]
                return None
            if feature is not None and name in stage.as_sent:
                edge = self.execution.mechanism.echo(stage, name)
                feature, lines = self.execution.echo(edge, stage, feature)
                self.lines.setdefault(stage.name, []).extend(lines)
            found.append(feature)
        return found

    def run(self, stage: Stage) -> None:
        """Run a stage whose inputs are known, if it has what it needs."""
        inputs = self.inputs(stage)
        if inputs is not None:
            feature, lines = self.execution.run(stage, inputs)
            self.lines.setdefault(stage.name, []).extend(lines)
            if feature is None:
                self.missing[stage.name] = "withheld"
            else:
                self.features[stage.name] = feature

    def encode(self, edge: Edge) -> Packet | None:
        """An edge's feature as its codec makes it, if it was made."""
        feature = self.features.get(edge.source.name)
        if feature is None:
            self.missing[edge.key] = self.missing[edge.source.name]
            return None
        packet, self.lines[edge.key] = self.execution.encode(edge, feature)
        return packet

    def carry(self, edge: Edge, packet: Packet | None) -> Delivery | None:
        """What comes of a packet over the air."""
        if packet is None:
            return None
        delivery, lines = self.execution.carry(edge, packet)
        self.lines[edge.key] = self.lines.get(edge.key, []) + lines
        return delivery

    def send(self, edge: Edge) -> Delivery | None:
        """Give an edge's feature to the link, if it was made."""
        return self.carry(edge, self.encode(edge))

    def receive(self, edge: Edge, delivery: Delivery | None) -> None:
        """Take what has come over the air; None where its sender said nothing."""
        if delivery is None or delivery.outcome != "delivered":
            self.missing.setdefault(edge.key, "late" if delivery is None else delivery.outcome)
            return
        try:
            self.arrived[edge.key], lines = self.execution.receive(edge, delivery)
        except MissedError:
            # It came, and says nothing without the one that did not.
            self.missing[edge.key] = "lost"
            return
        self.lines[edge.key] = self.lines.get(edge.key, []) + lines


class Exchange(Protocol):
    """How processes hand each other what crosses."""

    def post(self, edge: Edge, sent: Packet | Delivery) -> None:
        """Leave it for the edge's target; where nothing was made, with the outcome that says why."""
        ...

    def take(self, edge: Edge) -> Packet | Delivery | None:
        """What has been posted; None where nobody posted by the deadline."""
        ...


def run_side(
    execution: Execution,
    side: Side,
    exchange: Exchange,
    *,
    emulates: bool = True,
    done: Mapping[str, Feature] | None = None,
) -> Progress:
    """Run the stages of one side, where each side has a process of its own.

    A peer that is silent until the exchange's deadline is a feature that is late: stages that can go
    on without it do.

    Args:
        execution: The same on all sides.
        side: Whose stages run.
        exchange: To and from the others.
        emulates: Whether this side simulates the radio for what it sends; else it posts packets, and
            who takes them simulates it. A side that takes packets needs links.
        done: What stages have made that are not run, such as a camera's picture.
    """
    progress = Progress(execution=execution)
    progress.features |= done or {}
    for step in execution.mechanism.steps:
        if isinstance(step, Edge):
            if step.target.side == side:
                came = exchange.take(step)
                if isinstance(came, Packet):
                    came = progress.carry(step, came)
                progress.receive(step, came)
        elif step.side == side:
            if step.name not in progress.features:
                progress.run(step)
            # At once: the others may wait for it while this side waits for somebody else.
            for edge in execution.mechanism.edges:
                if edge.source.name == step.name:
                    sent = progress.send(edge) if emulates else progress.encode(edge)
                    exchange.post(edge, sent or Delivery(outcome=progress.missing[edge.key]))
    return progress
