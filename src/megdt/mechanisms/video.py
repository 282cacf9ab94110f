"""Image-to-video for one ES and one UE: what the UE sees becomes a video, made at the ES.

Two kinds of video. A time-lapse draws once what the view has become at its end, and for each frame
goes so far from the one to the other, in latents, and denoises what that leaves between two
pictures. A camera track draws the scene beyond the view, to the right, as far as the camera goes,
and cuts each frame out of it.

Two ways to get it to the UE (section II-C1 of the paper): `video_sequential` makes all frames before
the first is sent, `video_parallel` sends each as soon as it is made, while the UE shows its own view.
What is lost on the way leaves the frame before it on the screen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from megdt.errors import MechanismError, RequestError
from megdt.mechanisms.panorama import EDGE_COLUMNS
from megdt.mechanisms.single_user import ask, embed, hold, observe, sense, show
from megdt.mechanisms.stages import Job, Mechanism, Stage
from megdt.models import FACTOR
from megdt.records import Feature, Result, Side

Motion = Literal["lapse", "track"]
"""What moves: time, or the camera."""

MAX_FRAMES, MAX_FRAMES_PER_S, MAX_PIXELS_PER_FRAME = 240, 120.0, 64

SETTLE = 0.4
"""Noise level from which a frame of a time-lapse is denoised: two pictures at once become one, and
what it shows stays."""


@dataclass(frozen=True, kw_only=True)
class Video:
    """What kind of video is made of the UE's view.

    Raises:
        RequestError: If a number is out of its range, or there is no such motion.
    """

    motion: Motion = "lapse"
    """`lapse`: the view goes on to what the prompt says; `track`: the camera goes to the right."""
    frames: int = 8
    frames_per_s: float = 8.0
    to_prompt: str = ""
    """What there is at the end; the request's prompt from beginning to end where left out."""
    change: float = 0.9
    """How much of the view a time-lapse may draw anew by its end: 0 nothing, 1 all of it."""
    pixels_per_frame: int = 16
    """How far the camera of a track goes."""

    def __post_init__(self) -> None:
        if self.motion not in get_args(Motion):
            raise RequestError(
                f"motion is {self.motion!r}, a video has {' or '.join(get_args(Motion))}; take one"
            )
        for name, low, high in (
            ("frames", 1, MAX_FRAMES), ("frames_per_s", 0.1, MAX_FRAMES_PER_S), ("change", 0, 1),
            ("pixels_per_frame", 1, MAX_PIXELS_PER_FRAME),
        ):  # fmt: skip
            value = getattr(self, name)
            if not low <= value <= high:  # also catches nan
                raise RequestError(f"{name} of the video is {value}, it goes from {low} to {high}")


# What both kinds are made of.


def ask_end(job: Job, *, to_prompt: str) -> Feature:
    """The user types what there is to be at the end."""
    del job
    return Feature(kind="prompt", values=to_prompt)


def begin(job: Job, view: Feature, prompt_embeds: Feature) -> Feature:
    """The UE's view in latents, with what was hidden drawn and the rest as it was seen."""
    latent = _edit(job, view.values, prompt_embeds.values, 0.0, view.confidence)
    return Feature(kind="seed", values=latent)


def end(job: Job, scene: Feature, led: Feature, *, change: float) -> Feature:
    """What the view has become at the end of a time-lapse."""
    return Feature(kind="seed", values=_edit(job, scene.values, led.values, change))


def lapse(
    job: Job,
    scene: Feature,
    last: Feature,
    led: Feature,
    led_to: Feature,
    *_: Feature,
    share: float,
) -> Feature:
    """A frame of a time-lapse.

    All frames take the same noise, so that what is the same stays the same from one to the next.

    Args:
        job: Whose rng_seed draws it.
        scene: The view at the beginning.
        last: The view at the end.
        led: What there was, in words. [embedding]
        led_to: What there is at the end.
        share: How far it has come, 0 to 1.
    """
    latent = _between(scene.values, last.values, share)
    drawn = _edit(job, latent, _between(led.values, led_to.values, share), SETTLE)
    return Feature(kind="frame", values=job.models.decode(drawn[None])[0])


def extend(job: Job, scene: Feature, led: Feature, led_to: Feature, *, share: float) -> Feature:
    """The scene with half a view more on the right, but for the latents where it ended before.

    Those say "here the picture ends", and are drawn anew.
    """
    known = scene.values[:, :, :-EDGE_COLUMNS]
    rows = known.shape[1]
    kept = rows // 2
    window = np.zeros((known.shape[0], rows, rows), np.float32)
    window[:, :, :kept] = known[:, :, -kept:]
    seen = np.zeros((rows, rows), np.float32)
    seen[:, :kept] = 1
    # Noise of its own, or the same flowers would come up again and again.
    request = replace(job.request, rng_seed=(job.request.rng_seed + known.shape[2]) % 2**63)
    drawn = _edit(
        replace(job, request=request), window, _between(led.values, led_to.values, share), 0.0, seen
    )
    return Feature(kind="seed", values=np.concatenate((known, drawn[:, :, kept:]), 2))


def track(job: Job, scene: Feature, *_: Feature, camera_px: int) -> Feature:
    """A frame of a camera track: a view cut out of the decoded scene, so between two latents too."""
    size_px = FACTOR * scene.values.shape[1]
    first = max(0, camera_px // FACTOR - EDGE_COLUMNS)
    last = -(-(camera_px + size_px) // FACTOR) + EDGE_COLUMNS
    part = np.ascontiguousarray(scene.values[:, :, first:last])
    at = camera_px - FACTOR * first
    image = job.models.decode(part[None])[0][:, at : at + size_px]
    return Feature(kind="frame", values=np.ascontiguousarray(image))


def follow(job: Job, frame: Feature | None, before: Feature) -> Feature:
    """What is on the screen: the frame, or the one before where it did not come."""
    del job
    return replace(before if frame is None else frame, kind="image")


def _edit(
    job: Job,
    latent: NDArray[np.float32],
    led: NDArray[np.float32],
    strength: float,
    confidence: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    request = job.request
    drawn = job.models.edit(
        latent[None],
        led[None],
        [request.rng_seed],
        strength=strength,
        steps=request.steps,
        guidance_scale=request.guidance_scale,
        confidence=None if confidence is None else confidence[None],
        progress=job.progress,
    )
    found: NDArray[np.float32] = drawn[0]
    return found


def _between(
    start: NDArray[np.float32], stop: NDArray[np.float32], share: float
) -> NDArray[np.float32]:
    return ((1 - share) * start + share * stop).astype(np.float32)


# The mechanisms.


def video_sequential(video: Video, size_px: int) -> Mechanism:
    """SEU for videos: the UE has nothing to show until the last frame is made."""
    drawn = _drawn(video, size_px)
    made = [stage.name for stage in drawn if stage.makes == "frame"]
    sent = [
        Stage(
            name=name.replace("frame", "send"), side=Side.ES, makes="frame", run=hold,
            inputs=(name, *(other for other in made if other != name)),
        )
        for name in made
    ]  # fmt: skip
    return Mechanism(
        name="video_sequential",
        about="SEU for a video (section II-C1): what the UE sees goes up, the ES makes every frame of it, and when all are made they come down.",
        stages=(*drawn, *sent, *_shown([stage.name for stage in sent])),
    )


def video_parallel(video: Video, size_px: int) -> Mechanism:
    """PEU for videos: the UE shows its own view, and then each frame as it comes."""
    drawn = _drawn(video, size_px)
    stages = []
    shown = {
        stage.inputs[0]: stage for stage in _shown([s.name for s in drawn if s.makes == "frame"])
    }
    for stage in drawn:
        stages.append(stage)
        if stage.name == "sense":
            stages.append(
                Stage(name="first", side=Side.UE, inputs=("sense",), makes="image", run=show)
            )
        if stage.name in shown:
            stages.append(shown[stage.name])
    return Mechanism(
        name="video_parallel",
        about="PEU for a video (section II-C1): the UE shows its own view at once; the ES makes a video of it and sends each frame as it is made, and the UE shows each as it comes.",
        stages=tuple(stages),
    )


def _drawn(video: Video, size_px: int) -> list[Stage]:
    """All stages up to the frames, which the ES makes one after the other."""
    ends = bool(video.to_prompt.strip())
    stages = [
        Stage(name="sense", side=Side.UE, makes="image", run=sense),
        Stage(name="ask", side=Side.UE, makes="prompt", run=ask),
        *[
            Stage(name="ask_end", side=Side.UE, makes="prompt",
                  run=partial(ask_end, to_prompt=video.to_prompt))
        ] * ends,
        Stage(name="observe", side=Side.UE, inputs=("sense",), makes="observation", run=observe),
        Stage(name="embed", side=Side.ES, inputs=("ask",), makes="prompt_embeds", run=embed),
        *[
            Stage(name="embed_end", side=Side.ES, inputs=("ask_end",), makes="prompt_embeds",
                  run=embed)
        ] * ends,
        Stage(name="begin", side=Side.ES, inputs=("observe", "embed"), makes="seed", run=begin),
    ]  # fmt: skip
    led_to = "embed_end" if ends else "embed"
    more = _lapse if video.motion == "lapse" else partial(_track, size_px=size_px)
    return stages + more(video, ("embed", led_to))


def _lapse(video: Video, led: tuple[str, str]) -> list[Stage]:
    stages = [
        Stage(
            name="end", side=Side.ES, inputs=("begin", led[1]), makes="seed",
            run=partial(end, change=video.change),
        )
    ]  # fmt: skip
    for number in range(1, video.frames + 1):
        stages.append(
            Stage(
                name=f"frame_{number}", side=Side.ES, makes="frame",
                inputs=("begin", "end", *led, *_after(number)),
                run=partial(lapse, share=number / video.frames),
            )
        )  # fmt: skip
    return stages


def _track(video: Video, led: tuple[str, str], *, size_px: int) -> list[Stage]:
    columns = size_px // FACTOR
    gained = columns - columns // 2 - EDGE_COLUMNS
    needed = [
        # Where the scene ends now it is drawn anew with the next part.
        math.ceil((-(-video.pixels_per_frame * n // FACTOR) + EDGE_COLUMNS) / gained)
        for n in range(1, video.frames + 1)
    ]
    stages: list[Stage] = []
    scene, reached = "begin", 0
    for number, parts in enumerate(needed, start=1):
        while reached < parts:
            reached += 1
            stages.append(
                Stage(
                    name=f"extend_{reached}", side=Side.ES, inputs=(scene, *led), makes="seed",
                    run=partial(extend, share=reached / needed[-1]),
                )
            )  # fmt: skip
            scene = f"extend_{reached}"
        stages.append(
            Stage(
                name=f"frame_{number}", side=Side.ES, makes="frame",
                inputs=(scene, *_after(number)),
                run=partial(track, camera_px=number * video.pixels_per_frame),
            )
        )  # fmt: skip
    return stages


def _after(number: int) -> tuple[str, ...]:
    """Awaited by a frame: one is on its way before the next is begun."""
    return (f"frame_{number - 1}",) if number > 1 else ()


def _shown(frames: list[str]) -> list[Stage]:
    """The UE's screen, frame by frame."""
    screen = ["sense", *(f"show_{number}" for number in range(1, len(frames) + 1))]
    return [
        Stage(
            name=name, side=Side.UE, inputs=(frame, before), optional=(frame,), makes="image",
            run=follow,
        )
        for frame, (before, name) in zip(frames, pairwise(screen), strict=True)
    ]  # fmt: skip


# The player.


@dataclass(frozen=True, kw_only=True)
class Playback:
    """How a video plays that is shown while it arrives; seconds on the ledger's clock.

    Args:
        shown_s: When each frame is on the screen.
        came: Whether it is itself that is shown, and not the one before.
        picture_s: When the UE has anything to show: its own view, where it shows that.
        first_s: When the first generated frame is on the screen; infinity where none came.
        playable_s: When to begin so that it plays to its end without a stall.
        stalls_s: For how long it stands still in all, if it begins with the first frame.
        waits: How often.
    """

    shown_s: tuple[float, ...]
    came: tuple[bool, ...]
    picture_s: float
    first_s: float
    playable_s: float
    stalls_s: float
    waits: int

    @property
    def lost(self) -> int:
        """Frames that did not come."""
        return self.came.count(False)


def play(result: Result, *, frames_per_s: float) -> Playback:
    """Play a video as its frames arrived.

    The player begins with the first frame. Each next one is due a frame's time after the one before
    it; what is not there yet it waits for, until the frame comes or is known to be lost.

    Args:
        result: Of video_sequential or video_parallel.
        frames_per_s: How fast it is meant to be.

    Raises:
        MechanismError: If no video was made.
    """
    ready = {c.stage: c.end_s for c in result.ledger.computations if c.task == "run"}
    there = [ready[name] for name in _screen(result)]
    came = tuple(
        any((name, Side.UE) in result.arrived for name in (f"frame_{n}", f"send_{n}"))
        for n in range(1, len(there) + 1)
    )
    step = 1 / frames_per_s
    shown = [there[0]]
    waited = [0.0]
    for at in there[1:]:
        due = shown[-1] + step
        waited.append(max(at - due, 0.0))
        shown.append(due + waited[-1])
    first = next((s for s, c in zip(shown, came, strict=True) if c), math.inf)
    return Playback(
        shown_s=tuple(shown),
        came=came,
        picture_s=min(ready.get("first", math.inf), shown[0]),
        first_s=first,
        playable_s=max(at - number * step for number, at in enumerate(there)),
        stalls_s=sum(waited),
        waits=sum(w > 0 for w in waited),
    )


def screen(result: Result) -> list[NDArray[np.uint8]]:
    """What the UE's screen shows, frame by frame. Each [height, width, 3]

    Raises:
        MechanismError: If no video was made.
    """
    return [result.features[name].values for name in _screen(result)]


def _screen(result: Result) -> list[str]:
    names = [name for name in result.features if name.startswith("show_")]
    if not names:
        raise MechanismError(
            f"no video was made, only {', '.join(result.features) or 'nothing'}; play a result of "
            "video_sequential or video_parallel"
        )
    return names
