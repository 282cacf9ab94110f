"""The simulator: every side of a mechanism in one process."""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping
from functools import partial

import numpy as np

from megdt.codecs import Codec
from megdt.errors import MechanismError
from megdt.link import Link
from megdt.link.energy import PROFILES
from megdt.mechanisms.stages import Job, Mechanism, Models, Progress, Stage
from megdt.records import Computation, Crossing, Feature, Kind, Ledger, Request, Result


def simulate(
    mechanism: Mechanism,
    request: Request,
    *,
    models: Models,
    codecs: Mapping[Kind, Codec],
    links: Mapping[Kind, Link],
    known: Mapping[str, Feature] | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run a mechanism and account for it.

    Args:
        mechanism: What runs where.
        request: What the user wants; its rng_seed also draws the noise of the air.
        models: Sub-models of all sides.
        codecs: How each kind of feature is coded where it changes side.
        links: What carries each kind of feature.
        known: Features of stages that ran before, by stage name: these stages are neither run nor
            charged again, so that one generation can be sent under many conditions.
        progress: Told of every step of long stages.

    Returns:
        Picture, ledger, and every stage's feature.

    Raises:
        MechanismError: If a feature crosses for which there is no codec or no link.
    """
    features: dict[str, Feature] = {}
    crossings: list[Crossing] = []
    computations: list[Computation] = []
    sides = {stage.name: stage for stage in mechanism.stages}
    for stage in mechanism.stages:
        if known is not None and stage.name in known:
            features[stage.name] = known[stage.name]
            continue
        inputs = []
        for name in stage.inputs:
            feature, source = features[name], sides[name]
            if source.side != stage.side:
                feature, line = cross(feature, source, stage, request, codecs, links)
                crossings.append(line)
            inputs.append(feature)
        job = Job(
            request=request,
            models=models,
            progress=partial(progress, stage.name) if progress is not None else None,
        )
        started = time.perf_counter()
        features[stage.name] = stage.run(job, *inputs)
        seconds = time.perf_counter() - started
        joules = PROFILES[stage.side].energy_j(seconds)
        computations.append(
            Computation(stage=stage.name, side=stage.side, seconds=seconds, energy_j=joules)
        )
    image = features[mechanism.stages[-1].name].values
    ledger = Ledger(crossings=tuple(crossings), computations=tuple(computations))
    return Result(image=image, ledger=ledger, features=features)


def cross(
    feature: Feature,
    source: Stage,
    target: Stage,
    request: Request,
    codecs: Mapping[Kind, Codec],
    links: Mapping[Kind, Link],
) -> tuple[Feature, Crossing]:
    """Take one feature over the air: encode, send, decode, charge."""
    for table, what in ((codecs, "codec"), (links, "link")):
        if feature.kind not in table:
            raise MechanismError(
                f"{feature.kind} crosses from {source.name} ({source.side}) to {target.name} "
                f"({target.side}) and the plan has no {what} for it; it has "
                f"{', '.join(sorted(table)) or 'none'}"
            )
    codec, link = codecs[feature.kind], links[feature.kind]
    # Each edge draws from its own generator: the noise does not depend on what else is sent.
    rng = np.random.default_rng(
        (request.rng_seed, zlib.crc32(f"{source.name}->{target.name}".encode()))
    )
    packet = codec.encode(feature)
    delivery = link.send(packet, rng)
    line = Crossing(
        source=source.name,
        target=target.name,
        from_side=source.side,
        to_side=target.side,
        kind=feature.kind,
        codec=type(codec).__name__,
        values=0 if isinstance(feature.values, str) else feature.values.size,
        bits=packet.bits,
        channel_uses=delivery.channel_uses,
        airtime_s=delivery.airtime_s,
        energy_j=delivery.energy_j,
    )
    return codec.decode(delivery), line
