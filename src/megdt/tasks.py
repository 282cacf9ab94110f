"""Tasks: what a user wants to have made, and the mechanisms and features that suit it.

The table follows Fig. 5 of the paper and its section III-C. Every entry runs, on a picture of the
user's or on a view of the scenario's world.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from megdt.errors import RequestError
from megdt.mechanisms.video import play
from megdt.records import Feature, Outcome, Part, Result, Side
from megdt.scenario import Scenario
from megdt.sensing import sense
from megdt.trial import load

if TYPE_CHECKING:
    from megdt.mechanisms.stages import StageProgress, StoredModels


@dataclass(frozen=True, kw_only=True)
class Task:
    """A kind of thing to have made.

    Args:
        name: As the command line calls it.
        about: What it makes of what.
        suits: Mechanism and the feature that it sends, the most suitable first.
        prompt: What is asked for where the user says nothing; None where a prompt is needed.
    """

    name: str
    about: str
    suits: Mapping[str, str]
    prompt: str | None = None

    @property
    def mechanism(self) -> str:
        """The most suitable."""
        return next(iter(self.suits))


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="text",
            about="a prompt, or what the UE sees, to words; little to send, so the ES writes",
            suits={"text": "text", "describe": "seed up, text down"},
            prompt="what grows here?",
        ),
        Task(
            name="text-to-image",
            about="a prompt to a picture",
            suits={
                "es_to_ue": "seed", "es_to_ue_steps": "seed with noise left", "es_to_ue_sketch": "sketch", "preview_then_seed": "sketch and seed",
            },
        ),
        Task(
            name="image-to-image",
            about="what the UE sees to a picture of it: as the prompt says, or as others know it",
            suits={
                "sequential": "seed", "parallel": "seeds both ways", "ue_to_es": "seed",
                "ue_to_es_sketch": "sketch", "ue_to_es_guided": "sketch and prompt",
            },
            prompt="a sunny day",
        ),
        Task(
            name="image-to-video",
            about="what the UE sees to a video that begins with it: a time-lapse, or a camera track "
            "(video.motion)",
            suits={
                "video_parallel": "seeds, each as it is made", "video_sequential": "seeds, all at the end",
            },
            prompt="the same meadow under the stars",
        ),
        Task(
            name="interactive-scene",
            about="something to see at once, and the picture as soon as it is there",
            suits={
                "sketch_first": "sketch, then seed", "parallel": "seeds both ways",
            },
            prompt="a sunny day",
        ),
        Task(
            name="shared-scene",
            about="what many UEs see to what each wants to see of it",
            suits={
                "decentralized": "seeds by need", "coordinated": "seeds up, a panorama down",
                "individual": "seeds with the ES alone",
            },
            prompt="the garden",
        ),
    )
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a side shows to its user, and when."""

    stage: str
    side: Side
    at_s: float
    """On the clock that starts with the request."""
    feature: Feature
    truth: NDArray[np.uint8] | None
    """What the world looks like there, where the picture is meant to be of it."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """A task that was run."""

    task: Task
    scenario: Scenario
    result: Result
    shown: tuple[Shown, ...]
    """In the order of time."""

    @property
    def came(self) -> int:
        """How many of the features that were sent have come."""
        return sum(c.outcome == "delivered" for c in self.result.ledger.crossings)

    @property
    def outcome(self) -> Outcome:
        """What became of it: of a video, whether any frame came; of many UEs, whether each has a
        picture. Where nothing came that was sent, it is lost, though a UE has its own view.
        """
        sent = len(self.result.ledger.crossings)
        if sent and not self.came:
            return "lost"
        if self.scenario.for_many:
            there = {shown.side for shown in self.shown}
            missing = set(self.scenario.panorama.by_side) - there
            return "lost" if missing else "delivered"
        if is_video(self.scenario) and self.result.outcome == "delivered":
            played = play(self.result, frames_per_s=self.scenario.video.frames_per_s)
            return "lost" if played.lost == len(played.came) else "delivered"
        return self.result.outcome


def is_video(scenario: Scenario) -> bool:
    """Whether it makes frames."""
    return any(stage.makes == "frame" for stage in scenario.mechanism.stages)


def find_task(name: str) -> Task:
    """The task of this name.

    Raises:
        RequestError: If there is none.
    """
    if name not in TASKS:
        raise RequestError(f"no task {name!r}; known: {', '.join(TASKS)}; choose one of these")
    return TASKS[name]


def defaults(task: Task) -> dict[str, dict[str, Any]]:
    """A scenario's tables for the task, where the user says nothing else."""
    asked = {} if task.prompt is None else {"request": {"prompt": task.prompt}}
    # Something before the camera, or those who share would have nothing to give.
    return {"plan": {"mechanism": task.mechanism}, "world": {"hidden": 0.1}, **asked}


def list_unread(scenario: Scenario, *, prompt: bool, ues: bool) -> list[str]:
    """What the user has said and the mechanism does not look at, in words.

    Args:
        scenario: Of the task.
        prompt: Whether a prompt was given.
        ues: Whether a number of UEs was.
    """
    stages = {stage.name for stage in scenario.mechanism.stages}
    name, unread = scenario.plan.mechanism, []
    if prompt and "ask" not in stages:
        unread.append(f"{name} reads no prompt")
    if ues and not scenario.for_many:
        unread.append(f"{name} has one UE")
    return unread


def check_suits(task: Task, mechanism: str) -> None:
    """See that a mechanism does the task.

    Raises:
        RequestError: If it does not.
    """
    if mechanism not in task.suits:
        raise RequestError(
            f"mechanism is {mechanism}, which does not do {task.name}; take one of "
            f"{', '.join(task.suits)}"
        )


def run_task(
    task: Task,
    scenario: Scenario,
    bundle: StoredModels,
    *,
    picture: NDArray[np.uint8] | None = None,
    progress: StageProgress | None = None,
) -> Done:
    """Run a task.

    Args:
        task: One of TASKS.
        scenario: Its mechanism is one that does the task.
        bundle: Sub-models of all sides.
        picture: What the UE senses; a view of the scenario's world where left out.
            [size_px, size_px, 3]
        progress: Told of every step of long stages.

    Raises:
        RequestError: If the mechanism does not do the task, or senses nothing that a picture could
            stand for.
    """
    check_suits(task, scenario.plan.mechanism)
    from megdt.models.cards import GENERATING

    load(scenario, bundle, GENERATING)
    sensed = sense(scenario, bundle)
    done, truth = sensed.done, sensed.truth
    if picture is not None:
        others = sorted(set(done.features) - {"sense"})
        if "sense" not in done.features or others:
            what = f"also takes {', '.join(others)}" if others else "senses nothing"
            raise RequestError(
                f"a picture is given, and {scenario.plan.mechanism} {what}; leave the picture out, "
                "for a view of the garden, or take sequential"
            )
        done, truth = Part(features={"sense": Feature(kind="image", values=picture)}), {}
    result = sensed.scenario.run(bundle, done=done, progress=progress)
    return Done(
        task=task, scenario=sensed.scenario, result=result, shown=_shown(sensed.scenario, result, truth)
    )  # fmt: skip


def _shown(
    scenario: Scenario, result: Result, truth: Mapping[str, NDArray[np.uint8]]
) -> tuple[Shown, ...]:
    ends = {c.stage: c.end_s for c in result.ledger.computations if c.task == "run"}
    found = [
        Shown(
            stage=stage.name, side=stage.side, at_s=ends[stage.name],
            feature=result.features[stage.name], truth=truth.get(stage.name),
        )
        for stage in scenario.mechanism.stages
        if stage.makes in ("image", "text") and stage.inputs and stage.name in result.features
        and stage.name in ends and (stage.side.is_ue or stage is scenario.mechanism.stages[-1])
    ]  # fmt: skip
    return tuple(sorted(found, key=lambda s: s.at_s))
