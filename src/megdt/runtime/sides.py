"""One side of a request, run beside its session: what the other end sends is handed to the stages that
wait for it, and the ledgers of both ends become one.

Stages block, so they run in threads; sessions are not for threads, so what a stage sends is handed to
the driver, which calls the session where it owns it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from threading import Condition, Semaphore
from typing import Any

from megdt.errors import SessionError
from megdt.link import Link
from megdt.link.energy import DEVICES, DeviceProfile
from megdt.link.network import NetworkLink
from megdt.mechanisms.execute import CoreSeconds, Execution, Progress, run_side
from megdt.mechanisms.schedule import make_ledger
from megdt.mechanisms.single_user import fuse
from megdt.mechanisms.stages import Edge, Mechanism, Models, Stage
from megdt.models.lockstep import state_hash
from megdt.records import (
    Computation,
    Delivery,
    Feature,
    Kind,
    Ledger,
    Line,
    Outcome,
    Packet,
    Side,
)
from megdt.runtime.events import FeatureArrived
from megdt.runtime.messages import Tables
from megdt.scenario import Model, Scenario, parse_scenario

Send = Callable[[Edge, Packet | Delivery], None]
"""Hands what crosses an edge to the driver; called in the thread of the stages."""

NETWORK = "network"
"""Name of the channel that is none: the nodes' own network is the link."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a request's tables say."""

    scenario: Scenario
    network: bool = False
    """Whether the nodes' network is the link, instead of a radio that the ES simulates."""


class Post:
    """What comes for one request, and what goes.

    The ES simulates the radio both ways, so that a UE needs to know nothing of it: a UE sends packets
    as its codecs make them, the ES what has come out of the link.

    Args:
        side: Whose post this is.
        send: Takes what goes.
        deadline_s: From now on; what has not come by then is late.
        turns: Held by the thread that computes, and given back while it waits for the other end: a
            slow network holds up nobody else.
    """

    def __init__(
        self, side: Side, send: Send, *, deadline_s: float, turns: Semaphore | None = None
    ) -> None:
        self._side, self._send, self._turns = side, send, turns
        self._until_s = time.monotonic() + deadline_s
        self._came: dict[tuple[str, Side], Packet | Delivery] = {}
        self._lines: Ledger | None = None
        self._stopped: SessionError | None = None
        self._change = Condition()

    def deliver(self, event: FeatureArrived) -> None:
        """A feature has come from the other end; one that has crossed the link on the wrong end stops
        the request.
        """
        content, wanted = event.content, self._side.is_ue
        crossed = isinstance(content, Delivery)
        nothing = isinstance(content, Delivery) and content.outcome != "delivered"
        if crossed != wanted and not nothing:
            what = "has crossed no link" if wanted else "says that it has crossed a link"
            text = (
                f"{event.kind} of {event.source} {what}; the ES simulates the radio, a UE sends what "
                "its codecs make"
            )
            self.stop(SessionError(text, code="request"))
            return
        with self._change:
            self._came[event.source, event.to_side] = content
            self._change.notify_all()

    def deliver_lines(self, ledger: Ledger) -> None:
        """What the other end's stages and crossings have cost."""
        with self._change:
            self._lines = ledger
            self._change.notify_all()

    def stop(self, error: SessionError) -> None:
        """Nobody waits for this request any more: its stages end at their next step or crossing."""
        with self._change:
            self._stopped = error
            self._change.notify_all()

    def check(self) -> None:
        """See that somebody waits for it.

        Raises:
            SessionError: If the request was stopped.
        """
        if self._stopped is not None:
            raise self._stopped

    def post(self, edge: Edge, sent: Packet | Delivery) -> None:
        """Send what crosses an edge.

        Raises:
            SessionError: If the request was stopped.
        """
        self.check()
        self._send(edge, sent)

    def take(self, edge: Edge) -> Packet | Delivery | None:
        """What has crossed an edge; None where nothing has by the deadline.

        Raises:
            SessionError: If the request was stopped.
        """
        self._wait(lambda: edge.key in self._came)
        return self._came.pop(edge.key, None)

    def take_lines(self) -> Ledger | None:
        """What the other end has spent; None where it has not said so by the deadline.

        Raises:
            SessionError: If the request was stopped.
        """
        self._wait(lambda: self._lines is not None)
        return self._lines

    def _wait(self, here: Callable[[], bool]) -> None:
        if self._turns is not None:
            self._turns.release()
        with self._change:
            left_s = max(self._until_s - time.monotonic(), 0.0)
            self._change.wait_for(lambda: self._stopped is not None or here(), left_s)
        if self._turns is not None:
            self._turns.acquire()
        self.check()


def parse_request(tables: Tables, model: Model | None = None) -> Asked:
    """What a request's tables say; of what another machine has sent, nothing is opened.

    Args:
        tables: Of a scenario.
        model: Whose sub-models this end has; the bundle's where left out.

    Raises:
        ScenarioError: If they are no scenario.
        SessionError: If it names a file, a server or another model, or takes more sides than the ES and
            one UE.
    """
    _check_places(tables)
    own, named = (model or Model()).table(), dict(_entries(tables, "model"))
    if named not in ({}, own):
        raise SessionError(
            f"the request says [model] {named}; each end is told its own, so leave the table out",
            code="request",
        )
    tables = {**tables, "model": own}
    network = dict(_entries(tables, "link")).get("channel") == NETWORK
    if network:
        radio = [key for key, _ in _entries(tables, "link") if key != "channel"]
        if radio:
            raise SessionError(
                f"link.{radio[0]} is of a radio, and the channel is {NETWORK}; leave one of them out",
                code="request",
            )
        tables = {name: table for name, table in tables.items() if name != "link"}
    scenario = parse_scenario(tables)
    sides = set(scenario.mechanism.sides)
    if not sides <= {Side.ES, Side.UE}:
        raise SessionError(
            f"mechanism {scenario.mechanism.name} has {len(sides) - 1} UEs; ask for one of one UE",
            code="request",
        )
    return Asked(scenario=scenario, network=network)


def senses(mechanism: Mechanism) -> tuple[Stage, ...]:
    """The stages whose feature is given and not made: a camera's picture, or what the ES has seen."""
    return tuple(
        s for s in mechanism.stages if s.makes in ("image", "observation") and not s.inputs
    )


def _check_places(tables: Tables) -> None:
    """See that tables send nobody to files or servers, before any is opened: to an ES they would be its
    own, with its keys.
    """
    named = [
        *((f"devices.{end}", name) for end, name in _entries(tables, "devices") if name not in DEVICES),
        *(
            (f"link.{key}", name) for key, name in _entries(tables, "link")
            if key == "channel" and str(name).startswith("trace:")
        ),
        *((f"writer.{key}", name) for key, name in _entries(tables, "writer") if key == "base_url"),
    ]  # fmt: skip
    for key, name in named:
        raise SessionError(
            f"{key} is {name!r}, and a request must not send the other end to files or servers; take "
            "what every machine has",
            code="request",
        )


def _entries(tables: Tables, name: str) -> Iterable[tuple[str, Any]]:
    table = tables.get(name)
    return table.items() if isinstance(table, Mapping) else ()


def run_part(
    asked: Asked,
    side: Side,
    models: Models,
    post: Post,
    *,
    view: Feature | None = None,
    rate_bytes_s: Callable[[], float | None] = lambda: None,
    core_s: CoreSeconds | None = None,
) -> Progress:
    """Run one side's stages of a request.

    Args:
        asked: Of `parse_request`; the same on both ends.
        side: This end's.
        models: Sub-models of this end.
        post: To and from the other end.
        view: What this end's camera sees, or what it remembers, where its mechanism has it do so: an
            image, with its age.
        rate_bytes_s: What the network has carried so far, where it is the link.
        core_s: As of `simulate`.

    Raises:
        MegdtError: Of its stages, if the request was stopped, or if a view is lacking or has
            another size than the request says.
    """
    scenario = asked.scenario
    crossing = {edge.source.makes for edge in scenario.mechanism.edges}
    codecs = {kind: scenario.codec(kind) for kind in scenario.plan.codecs if kind in crossing}
    network = NetworkLink(rate_bytes_s=rate_bytes_s)

    def link_of(kind: Kind) -> Link:
        return network if asked.network else scenario.link_of(kind)

    execution = Execution(
        mechanism=scenario.mechanism,
        request=scenario.request,
        models=scenario.with_writer(models),
        codecs=codecs,
        links={} if side.is_ue else {kind: link_of(kind) for kind in codecs},
        devices=scenario.devices.profiles(scenario.mechanism.sides),
        progress=lambda *_: post.check(),
        core_s=core_s,
    )
    done = _see(scenario, side, view)
    return run_side(execution, side, post, emulates=not side.is_ue, done=done)


def _see(scenario: Scenario, side: Side, view: Feature | None) -> dict[str, Feature]:
    """What the stages that sense, or remember, on this side have made."""
    here = [stage for stage in senses(scenario.mechanism) if stage.side == side]
    if not here:
        return {}
    name, size_px = scenario.mechanism.name, scenario.request.size_px
    if view is None:
        lacking = (
            f"mechanism {name} senses, and no picture was given; give one of {size_px} x {size_px} "
            "pixels"
            if side.is_ue
            else f"the ES of mechanism {name} takes what it has seen of this UE, and that is nothing "
            "yet; send a view up first, by ue_to_es or sequential"
        )
        raise SessionError(lacking, code="request")
    if view.values.shape != (size_px, size_px, 3):
        what = "the picture" if side.is_ue else "what the ES remembers of this UE"
        raise SessionError(
            f"mechanism {name} senses, and {what} is {view.values.shape}; give one of {size_px} x "
            f"{size_px} pixels",
            code="request",
        )
    return {stage.name: replace(view, kind=stage.makes) for stage in here}


def states_of(progress: Progress) -> dict[str, bytes]:
    """What this side's copies of the gate have made, each named by its inputs, which are alike on all
    sides.
    """
    stages = progress.execution.mechanism.stages
    return {
        "+".join(stage.inputs): state_hash(progress.features[stage.name].values)
        for stage in stages
        if stage.run is fuse and stage.name in progress.features
    }


def lines_of(progress: Progress) -> Ledger:
    """What one side has spent so far, without a clock: the other end has the rest."""
    every = [line for lines in progress.lines.values() for line in lines]
    return Ledger(
        crossings=tuple(line for line in every if not isinstance(line, Computation)),
        computations=tuple(line for line in every if isinstance(line, Computation)),
    )


def join_ledgers(
    progress: Progress, theirs: Ledger, devices: Mapping[Side, DeviceProfile]
) -> Ledger:
    """One ledger of what both ends have spent, as `simulate` would have written it.

    Args:
        progress: Of this end.
        theirs: As the other end told it.
        devices: Of all sides.
    """
    mechanism = progress.execution.mechanism
    lines: dict[object, list[Line]] = {key: list(own) for key, own in progress.lines.items()}
    told: tuple[Line, ...] = (*theirs.crossings, *theirs.computations)
    for line in told:
        lines.setdefault(_key_of(mechanism, line), []).append(line)
    for edge in mechanism.edges:  # encoded, sent, decoded
        lines[edge.key] = sorted(lines.get(edge.key, ()), key=_stage_of_crossing)
    return make_ledger(
        mechanism, {key: found for key, found in lines.items() if found}, devices,
        in_order=progress.execution.in_order,
    )  # fmt: skip


def outcome_of(mechanism: Mechanism, ledger: Ledger) -> Outcome:
    """What became of the last stage, by what was run and what arrived."""
    ran = {c.stage for c in ledger.computations if c.task == "run"}
    crossed = {(c.source, c.to_side): c.outcome for c in ledger.crossings}

    def of(name: str) -> Outcome:
        stage = mechanism.by_name[name]
        if name in ran:
            return "delivered"
        for source in (name for name in stage.inputs if name not in stage.optional):
            before = of(source)
            if before != "delivered":
                return before
            here = mechanism.by_name[source].side == stage.side
            outcome = "delivered" if here else crossed.get((source, stage.side), "late")
            if outcome != "delivered":
                return outcome
        return "lost"  # it came, and said nothing without one that did not

    return of(mechanism.stages[-1].name)


def _key_of(mechanism: Mechanism, line: Line) -> object:
    """The stage or the edge that a line is of."""
    target = line.stage if isinstance(line, Computation) else line.target
    for edge in mechanism.edges:
        if (edge.source.name, edge.target.name) == (line.source, target):
            return edge.key
    return target


def _stage_of_crossing(line: Line) -> int:
    if not isinstance(line, Computation):
        return 1
    return 0 if line.task.startswith("encode") else 2
