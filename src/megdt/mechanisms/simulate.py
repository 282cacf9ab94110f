"""The simulator: every side of a mechanism in one process."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from megdt.codecs import Codec
from megdt.errors import MechanismError
from megdt.link import Link
from megdt.link.energy import DeviceProfile
from megdt.mechanisms.execute import CoreSeconds, Execution, Progress
from megdt.mechanisms.schedule import make_ledger
from megdt.mechanisms.stages import Edge, Mechanism, Models, Stage, StageProgress
from megdt.records import Computation, Crossing, Kind, Line, Part, Request, Result, Side


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
    workers: int = 1,
    core_s: CoreSeconds | None = None,
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
        workers: Stages and crossings that may run at once here. The result is the same; what a
            stage takes in simulated time is too, but for what is measured and not counted.
        core_s: Seconds of what counts no operations, codecs above all. Measured here where left out,
            so another run takes a little more or less.

    Returns:
        Picture, ledger, and every stage's feature. Where a feature is late or lost on the air, so
        is what needs it, while other branches go on; the outcome is the last stage's.

    Raises:
        MechanismError: If a feature crosses for which there is no codec or no link, a stage makes
            another kind of feature than it says, `done` names a stage that is not there, or a
            side has no device.
    """
    done = Part() if done is None else done
    execution = Execution(
        mechanism=mechanism,
        request=request,
        models=models,
        codecs=codecs,
        links=links,
        devices=devices,
        progress=progress,
        core_s=core_s,
    )
    made = Progress(execution=execution)
    _take_over(made, done)
    if workers == 1:
        for step in mechanism.steps:
            _do(made, step)
    else:
        _do_all(made, workers)
    last = mechanism.stages[-1].name
    return Result(
        outcome=made.missing.get(last, "delivered"),
        made=made.features.get(last),
        ledger=make_ledger(mechanism, made.lines, devices, in_order=execution.in_order),
        features={
            s.name: made.features[s.name] for s in mechanism.stages if s.name in made.features
        },
        arrived=made.arrived,
    )


def _take_over(made: Progress, done: Part) -> None:
    """Begin with what has been done and what it has cost."""
    mechanism = made.execution.mechanism
    names = {stage.name for stage in mechanism.stages}
    for name in done.features:
        if name not in names:
            raise MechanismError(
                f"stage {name!r} is done, but {mechanism.name} has no such stage; it has "
                f"{', '.join(s.name for s in mechanism.stages)}"
            )
    made.features |= done.features
    made.arrived |= done.arrived
    sides = {stage.name: stage.side for stage in mechanism.stages}
    for line in sorted(done.ledger.lines, key=_rank):
        key: object = line.stage if isinstance(line, Computation) else (line.source, line.to_side)
        if isinstance(line, Computation) and line.source is not None:
            side = sides[line.stage]
            key = line.stage if sides[line.source] == side else (line.source, side)
        made.lines.setdefault(key, []).append(line)


def _rank(line: Line) -> int:
    """What crosses is encoded, sent, decoded; then a stage runs."""
    if isinstance(line, Crossing):
        return 1
    return {"encode": 0, "decode": 2}.get(line.task.split()[0], 3)


def _needed(made: Progress, step: Stage | Edge) -> bool:
    """Whether a stage or an edge is yet to be done: the latter, if a stage is that takes it."""
    if isinstance(step, Stage):
        return step.name not in made.features
    takers = made.execution.mechanism.takers[step.key]
    return step.key not in made.arrived and any(s.name not in made.features for s in takers)


def _do(made: Progress, step: Stage | Edge) -> None:
    if not _needed(made, step):
        return
    if isinstance(step, Stage):
        made.run(step)
    else:
        made.receive(step, made.send(step))


def _do_all(made: Progress, workers: int) -> None:
    """Do each step as soon as what it needs is there, several at once."""
    waiting = {_key(step): step for step in made.execution.mechanism.steps}
    running: dict[Future[None], object] = {}
    ended: set[object] = set()
    with ThreadPoolExecutor(workers) as pool:
        while waiting or running:
            for key in [k for k, step in waiting.items() if _needs(made, step) <= ended]:
                running[pool.submit(_do, made, waiting.pop(key))] = key
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                ended.add(running.pop(future))
                future.result()


def _key(step: Stage | Edge) -> object:
    return step.name if isinstance(step, Stage) else step.key


def _needs(made: Progress, step: Stage | Edge) -> set[object]:
    """Keys of what has to be over before this can begin."""
    if isinstance(step, Edge):
        before = made.execution.before(step)
        return {step.source.name} | ({before.key} if before is not None else set())
    by_name = made.execution.mechanism.by_name
    return {n if by_name[n].side == step.side else (n, step.side) for n in step.inputs}
