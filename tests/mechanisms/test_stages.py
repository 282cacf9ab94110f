from __future__ import annotations

import pytest

from megdt.errors import MechanismError
from megdt.mechanisms.single_user import CENTRALIZED, ES_TO_UE, ask, decode, show
from megdt.mechanisms.stages import Mechanism, Stage
from megdt.records import Side


def test_only_edges_that_change_side_cross() -> None:
    crossings = [(a.name, b.name) for a, b in ES_TO_UE.crossings()]
    assert crossings == [("ask", "embed"), ("denoise", "decode")]
    assert [a.makes for a, _ in CENTRALIZED.crossings()] == ["prompt", "image"]


def test_a_stage_must_come_after_its_inputs() -> None:
    with pytest.raises(
        MechanismError, match="stage 'decode' of m takes 'denoise', which no earlier"
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
    assert Mechanism(name="on_device", stages=moved).crossings() == ()
    assert show.__doc__
