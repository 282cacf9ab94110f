"""Mechanisms between one edge server and many user equipments, cameras along one panorama.

The three levels of section II-C2 of the paper. In each, every UE senses its view and encodes it; they
differ in whose features meet where:

individual      each UE's with what the ES remembers around its view, on the UE
decentralized   the same, and what other UEs share with it
coordinated     all with what the ES remembers, on the ES, which sends all of it to everyone

The ES's memory is the done feature of stage `remember`: an observation of the whole panorama. A
feature that came earlier and has not been renewed is handed on as arrived, `aged`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from megdt.errors import MechanismError
from megdt.mechanisms.panorama import Camera, Columns, Panorama, cut, place
from megdt.mechanisms.single_user import decode, fuse, observe
from megdt.mechanisms.stages import Job, Mechanism, Stage
from megdt.models import FACTOR
from megdt.records import Feature, Kind, Side

TILE_COLUMNS = 32
"""Of the panorama that the gate fuses at once: only those who see some of it are looked at, so the
work grows with the panorama and not with the UEs times the panorama."""

REACH_COLUMNS = 8
"""How far the gate looks beyond a position: one step of pooling and seven convolutions of 3."""

WORTH = 0.05
"""Mean gain over a column, of 1, below which it is not worth being sent."""

HALF_LIFE_S = 86_400.0
"""Age at which an observation is worth half: in the garden skies change from day to day, and flowers
within ten."""


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


@dataclass(frozen=True, kw_only=True)
class Share:
    """Columns that one side sends to a UE because it can use them.

    Args:
        source: Another UE, of its view; or the ES, of its memory.
        target: A UE.
        columns: Of the panorama, rising.
    """

    source: Side
    target: Side
    columns: tuple[int, ...]

    @property
    def name(self) -> str:
        """Of the stage that makes it, and of the feature that crosses."""
        to = self.target.removeprefix("UE")
        return (
            f"share_{self.source.removeprefix('UE')}_{to}" if self.source.is_ue else f"recall_{to}"
        )


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


def decentralized(panorama: Panorama, shares: Sequence[Share]) -> Mechanism:
    """Every UE shows its extended view, with the help of those that share theirs with it.

    Args:
        panorama: Who sees what of it.
        shares: Who sends what to whom, directly; see `choose_shares`. With `surroundings` before
            them the ES tells each UE all that it tells it in `individual`.

    Raises:
        MechanismError: If a share is from or to a side that has no camera, from a UE to itself, of
            columns that its source does not see or that do not rise, or the second between the
            same two.
    """
    _check_shares(panorama, shares)
    return _on_ues(
        "decentralized",
        "Decentralized generation (section II-C2): UEs send each other what they need of their views, and each fuses what has come with its own.",
        panorama,
        shares,
    )


def coordinated(panorama: Panorama) -> Mechanism:
    """All observations go to the ES, which fuses them to one panorama and sends it to every UE.

    It waits for every observation until that has come or is known to be late or lost: a round. The
    panorama comes down as a seed. [latent_channels, height, panorama]
    """
    cameras = panorama.cameras
    sources = tuple(_source(panorama, side) for side in (Side.ES, *panorama.by_side))
    names = tuple(source.stage for source in sources)
    return Mechanism(
        name="coordinated",
        about="Coordinated generation (section II-C2): the ES fuses the views of all UEs and its memory to one panorama, and every UE decodes that.",
        stages=(
            _given("remember", Side.ES, "observation"),
            *(stage for camera in cameras for stage in _look(panorama, camera)),
            Stage(
                name="fuse", side=Side.ES, inputs=names, optional=names[1:], makes="seed",
                run=partial(fuse_panorama, sources=sources, panorama=panorama),
            ),
            *(
                Stage(
                    name=f"decode_{c.number}", side=c.side, inputs=("fuse",), makes="image",
                    run=decode,
                )
                for c in cameras
            ),
        ),
    )  # fmt: skip


def surroundings(panorama: Panorama) -> tuple[Share, ...]:
    """From the ES to each UE: all of its extended view that it does not see for sure."""
    return tuple(
        Share(source=Side.ES, target=c.side, columns=panorama.around(c)) for c in panorama.cameras
    )


def choose_shares(
    panorama: Panorama,
    confidences: Mapping[Side, NDArray[np.float32]],
    ages_s: Mapping[Side, float],
    *,
    budget_bits: float,
    cost_bits: Callable[[int], float],
    requests: Mapping[Side, NDArray[np.float32]] | None = None,
    held: Mapping[Side, NDArray[np.float32]] | None = None,
    whole: bool = False,
) -> tuple[Share, ...]:
    """Who sends what to whom, by need (after Hu et al., Where2comm, arXiv:2209.12836).

    What a source has is worth its confidence, halved with every HALF_LIFE_S of age. What a UE needs
    of it is its request times what that is worth more than what the UE has. Share by share the one
    is chosen that meets most need a bit, of the columns in which it does.

    Args:
        panorama: Who sees what of it.
        confidences: Of the observations, by side; one that is left out has nothing to share. With
            the ES among them, of its memory, [height, panorama], it is a source as well.
            [height, width]
        ages_s: How old each of these is, by side.
        budget_bits: For all shares together.
        cost_bits: What the codec takes for so many columns.
        requests: How much each UE wants to see each position of its extended view, 0 to 1; one that
            is left out wants nothing. Without any, all that have an observation want all.
            [height, window]
        held: What a UE has of its extended view beside its own observation, from earlier shares:
            confidence halved with age likewise, see `worth`. [height, window]
        whole: Whether shares are whole views (or memories), for codecs of one shape.

    Returns:
        The same for the same arguments, most needed first.

    Raises:
        MechanismError: If a side has no camera, or a map is of another size.
    """
    needs = _Needs(panorama, confidences, ages_s, requests, held)
    chosen: list[Share] = []
    left = budget_bits
    best = {side: needs.best(side, left, cost_bits, whole) for side in needs.wanted}
    while any(best.values()):
        # The first of those that are alike, in the order of the cameras.
        side = max(best, key=lambda s: 0.0 if (b := best[s]) is None else b[0])
        found = best[side]
        assert found is not None
        _, share = found
        cost = cost_bits(len(share.columns))
        if cost <= left:
            chosen.append(share)
            left -= cost
            needs.meet(share)
        best[side] = needs.best(side, left, cost_bits, whole)
    return tuple(chosen)


def worth(confidence: NDArray[np.float32], age_s: float) -> NDArray[np.float32]:
    """Confidence, halved with every HALF_LIFE_S of age."""
    return np.asarray(confidence * 2.0 ** (-age_s / HALF_LIFE_S), np.float32)


class _Needs:
    """What each UE wants of its extended view, and has of it."""

    def __init__(
        self,
        panorama: Panorama,
        confidences: Mapping[Side, NDArray[np.float32]],
        ages_s: Mapping[Side, float],
        requests: Mapping[Side, NDArray[np.float32]] | None,
        held: Mapping[Side, NDArray[np.float32]] | None,
    ) -> None:
        self.panorama = panorama
        views = {camera.side: camera.view for camera in panorama.cameras}
        windows = {camera.side: panorama.window(camera) for camera in panorama.cameras}
        _check_maps("confidence", confidences, {**views, Side.ES: panorama.columns})
        _check_maps("request", requests or {}, windows)
        _check_maps("held", held or {}, windows)
        self.offers: dict[Side, tuple[range, NDArray[np.float32]]] = {}
        for side, confidence in confidences.items():
            if side not in ages_s:
                raise MechanismError(
                    f"the observation of {side} has no age; give its ages_s, 0 for now"
                )
            columns = views[side] if side.is_ue else panorama.columns
            self.offers[side] = columns, worth(confidence, ages_s[side])
        self.wanted: dict[Side, NDArray[np.float32]] = {}
        self.has: dict[Side, NDArray[np.float32]] = {}
        self.near: dict[Side, list[Side]] = {}
        maps = [*confidences.values(), *(requests or {}).values(), *(held or {}).values()]
        height = max((len(m) for m in maps), default=1)
        if any(len(m) != height for m in maps):
            raise MechanismError(
                f"maps are {min(len(m) for m in maps)} to {height} latents high; give maps of one "
                "panorama"
            )
        for side, window in windows.items():
            if side not in (confidences if requests is None else requests):
                continue
            all_of_it = np.ones((height, len(window)), np.float32)
            self.wanted[side] = all_of_it if requests is None else requests[side]
            has = (
                np.zeros_like(all_of_it) if held is None or side not in held else held[side].copy()
            )
            if side in self.offers:
                at = slice(views[side].start - window.start, views[side].stop - window.start)
                has[:, at] = np.maximum(has[:, at], self.offers[side][1])
            self.has[side] = has
            self.near[side] = [
                s for s, (c, _) in self.offers.items() if s != side and _meet(c, window)
            ]

    def best(
        self, side: Side, budget_bits: float, cost_bits: Callable[[int], float], whole: bool
    ) -> tuple[float, Share] | None:
        """The share that meets most need of a UE a bit; None where none does within the budget."""
        found: tuple[float, Share] | None = None
        for source in self.near[side]:
            columns, here, offered = self._overlap(source, side)
            gain = np.maximum(offered - self.has[side][:, here], 0) * self.wanted[side][:, here]
            by_column = gain.mean(0)
            needed = by_column >= WORTH
            sent = tuple(self.offers[source][0] if whole else np.asarray(columns)[needed].tolist())
            if not needed.any() or (cost := cost_bits(len(sent))) > budget_bits:
                continue
            rate = float(by_column[needed].sum()) / cost
            if found is None or rate > found[0]:
                found = rate, Share(source=source, target=side, columns=sent)
        return found

    def meet(self, share: Share) -> None:
        """Note that a UE gets what it needed of a source."""
        columns, here, offered = self._overlap(share.source, share.target)
        has = self.has[share.target][:, here]
        has[:] = np.where(np.isin(columns, share.columns), np.maximum(has, offered), has)
        self.near[share.target].remove(share.source)

    def _overlap(self, source: Side, side: Side) -> tuple[range, slice, NDArray[np.float32]]:
        """What a source sees of an extended view: columns, where they are in it, worth."""
        seen, offered = self.offers[source]
        window = self.panorama.window(self.panorama.by_side[side])
        columns = range(max(seen.start, window.start), min(seen.stop, window.stop))
        here = slice(columns.start - window.start, columns.stop - window.start)
        return columns, here, offered[:, columns.start - seen.start : columns.stop - seen.start]


def _check_maps(
    what: str, maps: Mapping[Side, NDArray[np.float32]], columns: Mapping[Side, Columns]
) -> None:
    for side, found in maps.items():
        if side not in columns:
            raise MechanismError(
                f"a map of {what} is of {side}, and there are {', '.join(columns)}; give maps of "
                "these"
            )
        if found.ndim != 2 or found.shape[1] != len(columns[side]):
            raise MechanismError(
                f"the map of {what} of {side} is {found.shape}; expected [height, "
                f"{len(columns[side])}]: give one number for each latent"
            )


def _on_ues(name: str, about: str, panorama: Panorama, shares: Sequence[Share]) -> Mechanism:
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
            *(_share(panorama, share) for share in shares),
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


def _share(panorama: Panorama, share: Share) -> Stage:
    source = _source(panorama, share.source)
    return Stage(
        name=share.name, side=share.source, inputs=(source.stage,), makes="observation",
        run=partial(cut_columns, source=source, wanted=share.columns),
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


def cut_columns(
    job: Job, observation: Feature, *, source: Source, wanted: tuple[int, ...]
) -> Feature:
    """The columns of an observation that another side can use."""
    del job
    return cut(observation, source.columns, wanted, who=source.who)


def fuse_window(
    job: Job, *observations: Feature | None, sources: Sequence[Source], window: range
) -> Feature:
    """What all observations that have come show of a window, to one seed, by the gate.

    Raises:
        MechanismError: If none is there, or one has another shape than its source says.
    """
    there = zip(observations, sources, strict=True)
    placed = (place(o, s.columns, window, who=s.who) for o, s in there if o is not None)
    return fuse(job, *placed)


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
        near = [o if _meet(s.columns, wide) else None for o, s in there]
        seed = fuse_window(job, *near, sources=sources, window=wide)
        fused.append(cut(seed, wide, tile))
    return Feature(
        kind="seed",
        values=np.concatenate([f.values for f in fused], -1),
        confidence=np.concatenate([f.confidence for f in fused if f.confidence is not None], -1),
    )


def _meet(columns: Columns, window: range) -> bool:
    return columns[0] < window.stop and window.start <= columns[-1]


def _check_shares(panorama: Panorama, shares: Sequence[Share]) -> None:
    there = ", ".join(panorama.by_side)
    names: set[str] = set()
    for share in shares:
        what = f"a share is from {share.source} to {share.target}"
        if share.target not in panorama.by_side or share.source not in {*panorama.by_side, "ES"}:
            raise MechanismError(
                f"{what}, and cameras are on {there}; let it go to one of them, from another or "
                "the ES"
            )
        if share.source == share.target:
            raise MechanismError(f"{what}, which has its own view already; leave it out")
        if share.name in names:
            raise MechanismError(f"{what} for the second time; put all its columns in one")
        names.add(share.name)
        seen = _source(panorama, share.source).columns
        rising = all(a < b for a, b in pairwise(share.columns))
        if not share.columns or not rising or not all(c in seen for c in share.columns):
            raise MechanismError(
                f"{what}, of columns {', '.join(map(str, share.columns)) or 'none'}, and "
                f"{share.source} sees {seen[0]} to {seen[-1]}; share some of these, rising"
            )
