from __future__ import annotations

import numpy as np
import pytest

from megdt.errors import MechanismError
from megdt.mechanisms.single_user import CENTRALIZED, ES_TO_UE, ask, decode, show
from megdt.mechanisms.stages import Mechanism, Stage
from megdt.records import Feature, Side


def test_only_edges_that_change_side_cross() -> None:
    edges = [(e.source.name, e.target.name) for e in ES_TO_UE.edges]
    assert edges == [("ask", "embed"), ("denoise", "decode")]
    assert [e.source.makes for e in CENTRALIZED.edges] == ["prompt", "image"]


def test_a_stage_must_come_after_its_inputs() -> None:
    with pytest.raises(
        MechanismError, match=r"stage 'decode' \(UE\) of m takes 'denoise', which no earlier"
    ):
        Mechanism(name="m", stages=(
            Stage(name="decode", side=Side.UE, inputs=("denoise",), makes="image", run=decode),
        ))  # fmt: skip


def test_names_are_unique() -> None:
    stage = Stage(name="ask", side=Side.UE, makes="prompt", run=ask)
    with pytest.raises(MechanismError, match="two stages named 'ask'"):
        Mechanism(name="m", stages=(stage, stage))


def test_a_mechanism_ends_in_a_picture() -> None:
    with pytest.raises(MechanismError, match="does not end in an image"):
        Mechanism(name="m", stages=(Stage(name="ask", side=Side.UE, makes="prompt", run=ask),))


def test_a_new_mechanism_is_a_list_of_stages() -> None:
    moved = tuple(
        Stage(name=s.name, side=Side.UE, inputs=s.inputs, makes=s.makes, run=s.run)
        for s in ES_TO_UE.stages
    )
    assert Mechanism(name="on_device", stages=moved).edges == ()
    assert show.__doc__


def seed_of(*inputs: object) -> Feature:
    del inputs
    return Feature(kind="seed", values=np.zeros((4, 8, 8), np.float32))


def test_a_cycle_is_said_to_be_one() -> None:
    with pytest.raises(MechanismError, match=r"takes 'b', which comes later: .* break the cycle"):
        Mechanism(
            name="m",
            stages=(
                Stage(name="a", side=Side.UE, inputs=("b",), makes="seed", run=seed_of),
                Stage(name="b", side=Side.ES, inputs=("a",), makes="seed", run=seed_of),
            ),
        )


def test_a_stage_has_a_side() -> None:
    with pytest.raises(MechanismError, match="stage 'a' has side None; say where it runs"):
        Stage(name="a", side=None, makes="seed", run=seed_of)  # type: ignore[arg-type]
    with pytest.raises(MechanismError, match="side is 'UE0', known are ES, UE and UE1"):
        Side.ue(0)
    with pytest.raises(MechanismError, match="side is 'phone'"):
        Side("phone")
    assert Side.ue(12) == "UE12"
    assert Side.ue(12).is_ue
    assert not Side.ES.is_ue


def test_what_a_stage_can_go_without_is_one_of_its_inputs() -> None:
    with pytest.raises(
        MechanismError, match=r"'a' \(UE\) can go on without 'x', which is no input"
    ):
        Stage(name="a", side=Side.UE, optional=("x",), makes="seed", run=seed_of)


def test_a_side_takes_a_feature_once_and_edges_are_numbered_by_who_sends() -> None:
    run = dict.fromkeys(("run",), seed_of)
    stages = (
        Stage(name="a", side=Side.ue(1), makes="seed", **run),
        Stage(name="b", side=Side.ES, inputs=("a",), makes="seed", **run),
        Stage(name="c", side=Side.ES, inputs=("a", "b"), makes="seed", **run),
        Stage(name="d", side=Side.ue(2), inputs=("c", "a"), makes="image", **run),
    )
    mechanism = Mechanism(name="m", stages=stages)
    assert mechanism.sides == ("UE1", "ES", "UE2")
    assert [(e.key, e.number) for e in mechanism.edges] == [
        (("a", "ES"), 0),
        (("c", "UE2"), 0),
        (("a", "UE2"), 1),
    ]
    names = [s.name if isinstance(s, Stage) else s.key for s in mechanism.steps]
    assert names == ["a", ("a", "ES"), "b", "c", ("c", "UE2"), ("a", "UE2"), "d"]
