"""The simulator: every side of a mechanism in one process."""

from __future__ import annotations

import copy
import time
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from megdt.codecs import Codec
from megdt.errors import MechanismError
from megdt.link import Link
from megdt.link.energy import DeviceProfile
from megdt.mechanisms.stages import Job, Mechanism, Models, Stage, StageProgress
from megdt.records import (
    Computation,
    Crossing,
    Feature,
    Kind,
    Ledger,
    Outcome,
    Packet,
    Part,
    Request,
    Result,
    Side,
)


def simulate(
    mechanism: Mechanism,
    request: Request,
    *,
    models: Models,
    codecs: Mapping[Kind, Codec],
    links: Mapping[Kind, Link],
    devices: Mapping[Side, DeviceProfile],
    done: Part | None = None,
    progress: StageProgress | None = None,
) -> Result:
    """Run a mechanism and account for it.

    Args:
        mechanism: What runs where.
        request: What the user wants; its rng_seed also draws the noise of the air.
        models: Sub-models of all sides.
        codecs: How each kind of feature is coded where it changes side.
        links: What carries each kind of feature.
        devices: What the sides are; they price computing and radio.
        done: Stages that ran before: they are not run again, and what they cost is taken over.
            So one generation can be sent under many conditions.
        progress: Told of every step of long stages.

    Returns:
        Picture, ledger, and every stage's feature. Where a feature is late or lost on the air, its
        outcome and what has been done and spent until then, without a picture.

    Raises:
        MechanismError: If a feature crosses for which there is no codec or no link, a stage makes
            another kind of feature than it says, or `done` names a stage that is not there.
    """
    done = Part() if done is None else done
    stages = {stage.name: stage for stage in mechanism.stages}
    for name in done.features:
        if name not in stages:
            raise MechanismError(
                f"stage {name!r} is done, but {mechanism.name} has no such stage; it has "
                f"{', '.join(stages)}"
            )
    run = _Run(request=request, codecs=codecs, links=links, devices=devices)
    run.crossings += done.ledger.crossings
    run.computations += done.ledger.computations
    features: dict[str, Feature] = dict(done.features)
    for stage in mechanism.stages:
        if stage.name in features:
            continue
        inputs = []
        for name in stage.inputs:
            feature = features[name]
            if stages[name].side != stage.side:
                outcome, arrived = run.carry(feature, stages[name], stage)
                if arrived is None:
                    return run.result(features, outcome)
                feature = arrived
            inputs.append(feature)
        tell = partial(progress, stage.name) if progress is not None else None
        job = Job(request=request, models=models, progress=tell)
        before = getattr(models, "flops", 0.0)
        started = time.perf_counter()
        feature = stage.run(job, *inputs)
        spent = time.perf_counter() - started
        run.charge(stage, "run", stage.side, spent, flops=getattr(models, "flops", 0.0) - before)
        if feature.kind != stage.makes:
            raise MechanismError(
                f"stage {stage.name!r} of {mechanism.name} made a {feature.kind}, it says it makes "
                f"a {stage.makes}; mend the stage"
            )
        features[stage.name] = feature
    return run.result(features, "delivered", image=features[mechanism.stages[-1].name].values)


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
class _Run:
    """What a running simulation has sent and spent so far."""

    request: Request
    codecs: Mapping[Kind, Codec]
    links: Mapping[Kind, Link]
    devices: Mapping[Side, DeviceProfile]
    crossings: list[Crossing] = field(default_factory=list)
    computations: list[Computation] = field(default_factory=list)
    arrived: dict[tuple[str, Side], Feature] = field(default_factory=dict)
    """Features that have crossed: a side that has one needs it only once."""
    sent: Counter[Side] = field(default_factory=Counter)

    def ledger(self) -> Ledger:
        return Ledger(crossings=tuple(self.crossings), computations=tuple(self.computations))

    def result(
        self,
        features: Mapping[str, Feature],
        outcome: Outcome,
        image: NDArray[np.uint8] | None = None,
    ) -> Result:
        arrived = {source: feature for (source, _), feature in self.arrived.items()}
        return Result(
            outcome=outcome, image=image, ledger=self.ledger(), features=features, arrived=arrived
        )

    def charge(
        self, stage: Stage, task: str, side: Side, measured_s: float, *, flops: float = 0.0
    ) -> None:
        device = self.devices[side]
        # Who counts no operations ran on a processor core, for as long as was measured here.
        seconds = device.compute_s(flops) if flops else measured_s
        self.computations.append(
            Computation(
                stage=stage.name,
                task=task,
                side=side,
                seconds=seconds,
                measured_s=measured_s,
                flops=flops,
                energy_j=device.compute_j(seconds) if flops else device.core_j(seconds),
                idle_j=sum(
                    d.radio_idle_j(seconds) + (d.compute_idle_j(seconds) if s != side else 0.0)
                    for s, d in self.devices.items()
                ),
            )
        )

    def carry(
        self, feature: Feature, source: Stage, target: Stage
    ) -> tuple[Outcome, Feature | None]:
        """Take one feature over the air: encode, send, decode, charge."""
        place = (source.name, target.side)
        if place in self.arrived:
            return "delivered", self.arrived[place]
        for table, what in ((self.codecs, "codec"), (self.links, "link")):
            if feature.kind not in table:
                raise MechanismError(
                    f"{feature.kind} crosses from {source.name} ({source.side}) to {target.name} "
                    f"({target.side}) and the plan has no {what} for it; it has "
                    f"{', '.join(sorted(table)) or 'none'}"
                )
        transmitter, link = self.codecs[feature.kind], self.links[feature.kind]
        # Two codecs of one plan, as on two machines: what the first remembers is not sent.
        receiver = copy.deepcopy(transmitter)
        if receiver is transmitter and getattr(transmitter, "__dict__", None):
            raise MechanismError(
                f"codec {transmitter!r} is its own copy, so it could pass features by the link; "
                "let copy.deepcopy make another"
            )
        rng = air_rng(self.request, source.side, target.side, self.sent[source.side])
        self.sent[source.side] += 1
        # A copy: what is judged later is what was made, not what a codec has left of it.
        given = copy.deepcopy(feature)
        started = time.perf_counter()
        packet = _bare(transmitter.encode(given))
        self.charge(target, f"encode {feature.kind}", source.side, time.perf_counter() - started)
        delivery = link.send(packet, rng)
        sender, taker = self.devices[source.side], self.devices[target.side]
        waiting_s = max(delivery.latency_s - delivery.airtime_s - delivery.feedback_s, 0.0)
        radio_j = (
            sender.transmit_j(delivery.airtime_s, delivery.radiated_j)
            + taker.receive_j(delivery.airtime_s)
            + taker.transmit_j(delivery.feedback_s, delivery.feedback_radiated_j)
            + sender.receive_j(delivery.feedback_s)
            + sender.radio_idle_j(waiting_s)
            + taker.radio_idle_j(waiting_s)
        )
        self.crossings.append(
            Crossing(
                source=source.name,
                target=target.name,
                from_side=source.side,
                to_side=target.side,
                kind=feature.kind,
                codec=repr(transmitter),
                outcome=delivery.outcome,
                values=feature.values.size if isinstance(feature.values, np.ndarray) else 0,
                bits=packet.bits,
                header_bits=delivery.header_bits,
                uses=delivery.uses,
                blocks=delivery.blocks,
                failed_first=delivery.failed_first,
                airtime_s=delivery.airtime_s,
                latency_s=delivery.latency_s,
                radiated_j=delivery.radiated_j,
                radio_j=radio_j,
                idle_j=sum(d.compute_idle_j(delivery.latency_s) for d in (sender, taker)),
            )
        )
        if delivery.outcome != "delivered":
            return delivery.outcome, None
        started = time.perf_counter()
        received = receiver.decode(delivery)
        self.charge(target, f"decode {feature.kind}", target.side, time.perf_counter() - started)
        self.arrived[place] = received
        return "delivered", received
