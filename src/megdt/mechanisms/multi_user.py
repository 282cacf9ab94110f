"""Mechanisms between one edge server and many user equipments, cameras along one panorama.

The three levels of section II-C2 of the paper. In each, every UE senses its view and encodes it; they
differ in whose features meet where:

individual      each UE's with what the ES remembers around its view, on the UE
decentralized   each UE's with what others, and the ES, share with it by need, on the UE
coordinated     all with what the ES remembers, on the ES, which sends all of it to everyone

`coordinated` may let observations add up on the air instead: all UEs send at once in the same channel
uses, each its latents times how sure it is of them, and what arrives is the sum.

By need means: every UE reports to the ES what it sees, and the ES asks for what others can use.

The ES's memory is the done feature of stage `remember`: an observation of the whole panorama. A
feature that came earlier and has not been renewed is handed on as arrived, `aged`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from megdt.errors import MechanismError
from megdt.mechanisms.panorama import Camera, Columns, Panorama, cut, meet, place
from megdt.mechanisms.sharing import check_shares
from megdt.mechanisms.single_user import decode, fuse, observe
from megdt.mechanisms.stages import Job, Mechanism, Stage
from megdt.models import FACTOR
from megdt.records import Feature, Fusion, Kind, Share, Side

Choice = Callable[[Mapping[Side, Feature]], tuple[Share, ...]]
"""Who sends what to whom, by the reports (needs) of those that have told theirs."""

TILE_COLUMNS = 32
"""Of the panorama that the gate fuses at once: only those who see some of it are looked at, so the
work grows with the panorama and not with the UEs times the panorama."""

SURE = 0.5
"""Confidence from which on an observation is believed; below, where there is no other."""

REACH_COLUMNS = 8
"""How far the gate looks beyond a position: one step of pooling and seven convolutions of 3."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A stage, where it runs, and the columns that its observation shows."""

    stage: str
    side: Side
    columns: Columns

    @property
    def who(self) -> str:
        """For errors."""
        return f"stage {self.stage!r} ({self.side})"


def individual(panorama: Panorama) -> Mechanism:
    """Each UE by itself: it shows its own view, and around it what the ES remembers.

    Observations [latent_channels, height, width] go up, and down [latent_channels, height,
    2 * (margin + EDGE_COLUMNS)].
    """
    return _on_ues(
        "individual",
        "Individual generation (section II-C2): each UE fuses its own view with what the ES remembers around it; nothing comes from other UEs.",
        panorama,
        surroundings(panorama),
    )


def decentralized(
    panorama: Panorama,
    shares: Sequence[Share],
    *,
    relayed: bool = False,
    choose: Choice | None = None,
) -> Mechanism:
    """Every UE shows its extended view, with the help of those that share theirs with it.

    Args:
        panorama: Who sees what of it.
        shares: Who sends what to whom, directly, as `choose_shares` has it. Reports for that
            choice, and what the ES asks for, cross too. With `surroundings` before them the ES
            tells each UE all that it tells it in `individual`.
        relayed: Whether shares of UEs go through the ES, from the observations that have come up,
            instead of from UE to UE; then nobody needs to be asked.
        choose: Chooses among these shares by the reports that have come, while it runs; all of
            those who have reported where left out.

    Raises:
        MechanismError: If a share is from or to a side that has no camera, from a UE to itself, of
            columns that its source does not see or that do not rise, or the second between the
            same two.
    """
    check_shares(panorama, shares)
    return _on_ues(
        "decentralized",
        "Decentralized generation (section II-C2): UEs report what they see, send each other what is needed of it, and each fuses what has come with its own view.",
        panorama,
        shares,
        by_need=True,
        relayed=relayed,
        choose=choose,
    )


def coordinated(panorama: Panorama, *, fusion: Fusion = "gate") -> Mechanism:
    """All observations go to the ES, which fuses them to one panorama and sends it to every UE.

    It waits for every observation until that has come or is known to be late or lost: a round. The
    panorama comes down as a seed. [latent_channels, height, panorama]

    Args:
        panorama: Who sees what of it.
        fusion: By the gate, or on the air: then every UE reports where it sees, and sends its
            latents times that, [latent_channels, height, watched]; the gate fuses what arrives
            with the ES's memory.
    """
    cameras = panorama.cameras
    on_air = fusion == "air"
    about = (
        "the views of all UEs add up on the air, the ES fuses the sum and its memory to one panorama"
        if on_air
        else "the ES fuses the views of all UEs and its memory to one panorama"
    )
    return Mechanism(
        name="coordinated",
        about=f"Coordinated generation (section II-C2): {about}, and every UE decodes that.",
        stages=(
            _given("remember", Side.ES, "observation"),
            *(stage for camera in cameras for stage in _look(panorama, camera)),
            *(stage for c in cameras if on_air for stage in _superpose(panorama, c)),
            _fuse_on_air(panorama) if on_air else _fuse_by_gate(panorama),
            *(
                Stage(
                    name=f"decode_{c.number}", side=c.side, inputs=("fuse",), makes="image",
                    run=decode,
                )
                for c in cameras
            ),
        ),
    )  # fmt: skip


def _fuse_by_gate(panorama: Panorama) -> Stage:
    sources = tuple(_source(panorama, side) for side in (Side.ES, *panorama.by_side))
    names = tuple(source.stage for source in sources)
    return Stage(
        name="fuse", side=Side.ES, inputs=names, optional=names[1:], makes="seed",
        run=partial(fuse_panorama, sources=sources, panorama=panorama),
    )  # fmt: skip


def _superpose(panorama: Panorama, camera: Camera) -> tuple[Stage, Stage]:
    """A UE says where it sees, and sends what it sees there with all others."""
    observed, reported = f"observe_{camera.number}", f"report_{camera.number}"
    return (
        _report(camera),
        Stage(
            name=f"weigh_{camera.number}", side=camera.side, inputs=(observed, reported),
            as_sent=(reported,), makes="superposed",
            run=partial(weigh, panorama=panorama, camera=camera),
        ),
    )  # fmt: skip


def _fuse_on_air(panorama: Panorama) -> Stage:
    numbers = [camera.number for camera in panorama.cameras]
    up = (*(f"report_{n}" for n in numbers), *(f"weigh_{n}" for n in numbers))
    return Stage(
        name="fuse", side=Side.ES, inputs=("remember", *up), optional=up, makes="seed",
        run=partial(fuse_sum, panorama=panorama),
    )  # fmt: skip


def surroundings(panorama: Panorama) -> tuple[Share, ...]:
    """From the ES to each UE: all of its extended view that it does not see for sure."""
    return tuple(
        Share(source=Side.ES, target=c.side, columns=panorama.around(c)) for c in panorama.cameras
    )


def _on_ues(
    name: str, about: str, panorama: Panorama, shares: Sequence[Share],
    *, by_need: bool = False, relayed: bool = False, choose: Choice | None = None,
) -> Mechanism:  # fmt: skip
    """Every UE fuses its own observation and what is sent to it; the ES refreshes its memory."""
    cameras = panorama.cameras
    to: dict[Side, list[Share]] = {camera.side: [] for camera in cameras}
    for share in shares:
        to[share.target].append(share)
    return Mechanism(
        name=name,
        about=about,
        stages=(
            _given("remember", Side.ES, "observation"),
            *(stage for camera in cameras for stage in _look(panorama, camera)),
            *(_ask(panorama, shares, relayed=relayed, choose=choose) if by_need else ()),
            *(_share(panorama, share, by_need=by_need, relayed=relayed) for share in shares),
            *(_refresh(panorama, camera) for camera in cameras),
            *(stage for c in cameras for stage in _show(panorama, c, to[c.side])),
        ),
    )


def _given(name: str, side: Side, makes: Kind) -> Stage:
    return Stage(name=name, side=side, makes=makes, run=partial(_nothing_given, name=name))


def _look(panorama: Panorama, camera: Camera) -> tuple[Stage, Stage]:
    """A UE senses its view and encodes it."""
    seen = f"sense_{camera.number}"
    return (
        _given(seen, camera.side, "image"),
        Stage(
            name=f"observe_{camera.number}", side=camera.side, inputs=(seen,),
            makes="observation", run=partial(observe_view, panorama=panorama, camera=camera),
        ),
    )  # fmt: skip


def _ask(
    panorama: Panorama, shares: Sequence[Share], *, relayed: bool, choose: Choice | None
) -> tuple[Stage, ...]:
    """Every UE says what it sees and for how long, the ES what it wants of each for the others."""
    reports, askings = [], []
    for camera in panorama.cameras:
        number = camera.number
        reports.append(_report(camera))
        wanted = tuple(share for share in shares if share.source == camera.side)
        if wanted and not relayed:
            askings.append(
                Stage(
                    name=f"ask_{number}", side=Side.ES, inputs=("choose",), makes="shares",
                    run=partial(pick, source=camera.side),
                )
            )  # fmt: skip
    names = tuple(stage.name for stage in reports)
    chosen = Stage(
        name="choose", side=Side.ES, inputs=names, optional=names, makes="shares",
        run=partial(
            ask_for, sides=tuple(panorama.by_side), shares=tuple(shares), choose=choose
        ),
    )  # fmt: skip
    return (*reports, chosen, *askings)


def _report(camera: Camera) -> Stage:
    return Stage(
        name=f"report_{camera.number}", side=camera.side, inputs=(f"observe_{camera.number}",),
        makes="needs", run=report,
    )  # fmt: skip


def _share(panorama: Panorama, share: Share, *, by_need: bool, relayed: bool) -> Stage:
    source = _source(panorama, share.source)
    side = Side.ES if relayed else share.source
    asked: tuple[str, ...] = ()
    if by_need:
        asked = (f"ask_{side.removeprefix('UE')}" if side.is_ue else "choose",)
    return Stage(
        name=share.name, side=side, inputs=(source.stage, *asked), makes="observation",
        run=partial(cut_columns, source=source, share=share),
    )  # fmt: skip


def _refresh(panorama: Panorama, camera: Camera) -> Stage:
    """What the ES will remember of a UE's view."""
    sources = (_source(panorama, Side.ES), _source(panorama, camera.side))
    names = tuple(source.stage for source in sources)
    return Stage(
        name=f"replica_{camera.number}", side=Side.ES, inputs=names, optional=names[1:],
        makes="seed", run=partial(fuse_window, sources=sources, window=camera.view),
    )  # fmt: skip


def _show(panorama: Panorama, camera: Camera, shares: Sequence[Share]) -> tuple[Stage, Stage]:
    """A UE fuses its own view with what others have sent, and decodes the extended view."""
    others = (Source(stage=s.name, side=s.source, columns=s.columns) for s in shares)
    sources = (_source(panorama, camera.side), *others)
    names, gate = tuple(source.stage for source in sources), f"gate_{camera.number}"
    return (
        Stage(
            name=gate, side=camera.side, inputs=names, optional=names[1:], makes="seed",
            run=partial(fuse_window, sources=sources, window=panorama.window(camera)),
        ),
        Stage(
            name=f"decode_{camera.number}", side=camera.side, inputs=(gate,), makes="image",
            run=partial(
                decode_shown, window=panorama.window(camera), shown=panorama.shown(camera)
            ),
        ),
    )  # fmt: skip


def _source(panorama: Panorama, side: Side) -> Source:
    """What a side has to tell, without what others have told it."""
    if not side.is_ue:
        return Source(stage="remember", side=side, columns=panorama.columns)
    camera = panorama.by_side[side]
    return Source(stage=f"observe_{camera.number}", side=side, columns=camera.view)


def _nothing_given(job: Job, *, name: str) -> Feature:
    raise MechanismError(
        f"stage {name!r} ({job.side}) was given nothing; pass its feature as done, as nothing is "
        "run there"
    )


def observe_view(job: Job, image: Feature, *, panorama: Panorama, camera: Camera) -> Feature:
    """Picture to latent, and where it was seen: not at the edges of the view."""
    return panorama.doubt_edges(observe(job, image), camera)


def report(job: Job, observation: Feature) -> Feature:
    """What an observation shows, and how old it is, without what it shows there."""
    del job
    return replace(observation, kind="needs", values=None)


def weigh(
    job: Job, observation: Feature, needs: Feature, *, panorama: Panorama, camera: Camera
) -> Feature:
    """An observation times how sure it is, as its report tells it, on the columns that are watched.

    Zero where it does not see, which is not sent. [latent_channels, height, watched]
    """
    del job
    told = replace(observation, confidence=needs.confidence)
    placed = place(told, camera.view, panorama.columns, who=f"the camera of {camera.side}")
    sent = cut(placed, panorama.columns, panorama.watched)
    assert sent.confidence is not None
    return Feature(kind="superposed", values=sent.values * sent.confidence)


def ask_for(
    job: Job,
    *reports: Feature | None,
    sides: tuple[Side, ...],
    shares: tuple[Share, ...],
    choose: Choice | None,
) -> Feature:
    """Who is to send what to whom, by the reports that have come; of others nothing is known."""
    del job
    told = {side: r for side, r in zip(sides, reports, strict=True) if r is not None}
    foreseen = {share.name for share in shares}
    chosen = shares if choose is None else choose(told)
    possible = tuple(
        share
        for share in chosen
        if share.name in foreseen and share.target in told and share.source in {Side.ES, *told}
    )
    return Feature(kind="shares", values=possible)


def pick(job: Job, shares: Feature, *, source: Side) -> Feature | None:
    """What is wanted of one side; None for nothing."""
    del job
    wanted = tuple(s for s in shares.values if s.source == source)
    return replace(shares, values=wanted) if wanted else None


def cut_columns(
    job: Job, observation: Feature, asked: Feature | None = None, *, source: Source, share: Share
) -> Feature | None:
    """The columns of an observation that another side can use; those that are asked for, if so.

    Raises:
        MechanismError: If some are asked for that the source does not see.
    """
    del job
    wanted = share.columns
    if asked is not None:
        found = [s.columns for s in asked.values if s.name == share.name]
        if not found:
            return None
        wanted = found[0]
    part = cut(observation, source.columns, wanted, who=source.who)
    return replace(part, columns=tuple(wanted))


def fuse_window(
    job: Job, *observations: Feature | None, sources: Sequence[Source], window: range
) -> Feature:
    """What all observations that have come show of a window, to one seed, by the gate.

    Raises:
        MechanismError: If none is there, or one has another shape than its source says.
    """
    there = zip(observations, sources, strict=True)
    placed = [
        place(o, o.columns or s.columns, window, who=s.who) for o, s in there if o is not None
    ]
    return fuse(job, *_without_doubt(placed))


def _without_doubt(observations: Sequence[Feature]) -> list[Feature]:
    """Who is in doubt has no say where another is sure: the gate would believe it a little."""
    maps = [o.confidence for o in observations if o.confidence is not None]
    if len({seen.shape for seen in maps}) != 1:
        return list(observations)  # which the gate refuses
    sure = np.max(maps, axis=0, initial=0) >= SURE
    return [
        replace(o, confidence=np.where(sure & (seen < SURE), np.float32(0), seen))
        for o, seen in zip(observations, maps, strict=True)
    ]


def decode_shown(job: Job, seed: Feature, *, window: range, shown: range) -> Feature:
    """The picture of a window, without what the decoder takes for the edge of a picture."""
    image = decode(job, seed)
    left, right = (FACTOR * (column - window.start) for column in (shown.start, shown.stop))
    return replace(image, values=np.ascontiguousarray(image.values[:, left:right]))


def fuse_panorama(
    job: Job, *observations: Feature | None, sources: Sequence[Source], panorama: Panorama
) -> Feature:
    """All observations that have come to one seed of the panorama, tile by tile.

    Raises:
        MechanismError: If nobody sees some of it, or an observation has another shape than its
            source says.
    """
    fused: list[Feature] = []
    for left in range(0, panorama.width, TILE_COLUMNS):
        tile = range(left, min(left + TILE_COLUMNS, panorama.width))
        # With so much around it a tile comes out as it would from the whole panorama; where one
        # side alone sees, that passes as it is.
        wide = range(
            max(tile.start - REACH_COLUMNS, 0), min(tile.stop + REACH_COLUMNS, panorama.width)
        )
        there = zip(observations, sources, strict=True)
        near = [o if meet(s.columns, wide) else None for o, s in there]
        seed = fuse_window(job, *near, sources=sources, window=wide)
        fused.append(cut(seed, wide, tile))
    return Feature(
        kind="seed",
        values=np.concatenate([f.values for f in fused], -1),
        confidence=np.concatenate([f.confidence for f in fused if f.confidence is not None], -1),
    )


def fuse_sum(job: Job, memory: Feature, *features: Feature | None, panorama: Panorama) -> Feature:
    """What has added up on the air, over the sum of weights, and the ES's memory to one seed.

    Where a UE may have sent whose report did not come nobody knows the weights, so nothing is
    believed there but the memory.

    Args:
        job: Whose models fuse.
        memory: Of the whole panorama.
        features: First the reports of all cameras, then the symbols of all.
        panorama: Who sees what of it.
    """
    watched, cameras = panorama.watched, panorama.cameras
    reports, parts = features[: len(cameras)], features[len(cameras) :]
    rows = memory.values.shape[1]
    total = np.zeros((*memory.values.shape[:2], len(watched)), np.float32)
    weight, known = np.zeros((rows, len(watched)), np.float32), np.ones(len(watched), bool)
    noise_power = age_s = 0.0
    for camera, told, part in zip(cameras, reports, parts, strict=True):
        here = np.isin(watched, camera.view)
        if part is not None:
            # All of them, whoever sent them: the air has no way to leave one out.
            total += part.values
            noise_power += part.noise_power
        if told is None or part is None:
            known &= ~here
            continue
        weight[:, here] += 1 if told.confidence is None else told.confidence
        age_s = max(age_s, told.age_s)
    seen = known & (weight > 0)
    over = np.where(seen, weight, 1)
    summed = Feature(
        kind="observation",
        values=total / over * seen,
        confidence=np.minimum(seen * weight, 1).astype(np.float32),
        age_s=age_s,
        noise_power=noise_power * float(np.mean(over[seen] ** -2.0)) if seen.any() else 0.0,
    )
    sources = (
        _source(panorama, Side.ES), Source(stage="fuse", side=Side.ES, columns=watched)
    )  # fmt: skip
    return fuse_panorama(job, memory, summed, sources=sources, panorama=panorama)
