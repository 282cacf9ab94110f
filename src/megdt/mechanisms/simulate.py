"""The simulator: every side of a mechanism in one process."""

from __future__ import annotations

import copy
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from megdt.codecs import Codec
from megdt.errors import MechanismError
from megdt.link import Link
from megdt.link.energy import PROFILES
from megdt.mechanisms.stages import Job, Mechanism, Models, Stage, StageProgress
from megdt.records import Computation, Crossing, Feature, Kind, Ledger, Part, Request, Result, Side


def simulate(
    mechanism: Mechanism,
    request: Request,
    *,
    models: Models,
    codecs: Mapping[Kind, Codec],
    links: Mapping[Kind, Link],
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
        done: Stages that ran before: they are not run again, and what they cost is taken over.
            So one generation can be sent under many conditions.
        progress: Told of every step of long stages.

    Returns:
        Picture, ledger, and every stage's feature.

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
    run = _Run(request=request, codecs=codecs, links=links)
    run.crossings += done.ledger.crossings
    run.computations += done.ledger.computations
    features: dict[str, Feature] = dict(done.features)
    for stage in mechanism.stages:
        if stage.name in features:
            continue
        inputs = [
            run.carry(features[name], stages[name], stage)
            if stages[name].side != stage.side
            else features[name]
            for name in stage.inputs
        ]
        tell = partial(progress, stage.name) if progress is not None else None
        job = Job(request=request, models=models, progress=tell)
        started = time.perf_counter()
        feature = stage.run(job, *inputs)
        run.charge(stage, "run", stage.side, time.perf_counter() - started)
        if feature.kind != stage.makes:
            raise MechanismError(
                f"stage {stage.name!r} of {mechanism.name} made a {feature.kind}, it says it makes "
                f"a {stage.makes}; mend the stage"
            )
        features[stage.name] = feature
    ledger = Ledger(crossings=tuple(run.crossings), computations=tuple(run.computations))
    return Result(
        image=features[mechanism.stages[-1].name].values, ledger=ledger, features=features
    )


@dataclass(kw_only=True)
class _Run:
    """What a running simulation has sent and spent so far."""

    request: Request
    codecs: Mapping[Kind, Codec]
    links: Mapping[Kind, Link]
    crossings: list[Crossing] = field(default_factory=list)
    computations: list[Computation] = field(default_factory=list)
    arrived: dict[tuple[str, Side], Feature] = field(default_factory=dict)
    """Features that have crossed: a side that has one needs it only once."""

    def charge(self, stage: Stage, task: str, side: Side, seconds: float) -> None:
        joules = PROFILES[side].energy_j(seconds)
        self.computations.append(
            Computation(stage=stage.name, task=task, side=side, seconds=seconds, energy_j=joules)
        )

    def carry(self, feature: Feature, source: Stage, target: Stage) -> Feature:
        """Take one feature over the air: encode, send, decode, charge."""
        place = (source.name, target.side)
        if place in self.arrived:
            return self.arrived[place]
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
        # Each edge draws from its own generator: its noise does not depend on what else is sent.
        edge = zlib.crc32(f"{source.name}->{target.side}".encode())
        rng = np.random.default_rng((self.request.rng_seed, edge))
        started = time.perf_counter()
        packet = transmitter.encode(feature)
        self.charge(target, f"encode {feature.kind}", source.side, time.perf_counter() - started)
        delivery = link.send(packet, rng)
        started = time.perf_counter()
        received = receiver.decode(delivery)
        self.charge(target, f"decode {feature.kind}", target.side, time.perf_counter() - started)
        self.crossings.append(
            Crossing(
                source=source.name,
                target=target.name,
                from_side=source.side,
                to_side=target.side,
                kind=feature.kind,
                codec=repr(transmitter),
                values=0 if isinstance(feature.values, str) else feature.values.size,
                bits=packet.bits,
                channel_uses=delivery.channel_uses,
                airtime_s=delivery.airtime_s,
                energy_j=delivery.energy_j,
            )
        )
        self.arrived[place] = received
        return received
