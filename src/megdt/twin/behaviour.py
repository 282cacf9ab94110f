"""Behaviour: where to send the drone, learned by imitating an expert in virtual gardens.

The expert (`worlds/watering.py`) knows the true state of every flower, as one can in a garden that
the twin makes itself. The policy sees what the twin holds of any garden: flowers counted in the
replica's latents, how old those are, the weather so far, and what the drone reports. It is learned
from the expert's choices in virtual gardens, and then sent out into the world, where nobody knows
the true state.

The policy scores each bed by one small network and sends the drone to the best, so it fits gardens
of any length. The first round is behaviour cloning: the expert tends. In each later one the policy
tends and the expert says what it would have done (DAgger), so that the policy learns what to do in
the states that its own mistakes lead to.

References:
    Ross, Gordon, Bagnell, "A Reduction of Imitation Learning and Structured Prediction to No-Regret
    Online Learning", AISTATS 2011 (DAgger).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megdt.errors import TwinError
from megdt.mechanisms.panorama import EDGE_COLUMNS, VIEW_COLUMNS
from megdt.records import Feature, Side
from megdt.twin.flowers import COLUMNS_A_M, FlowerCounter, read_kept
from megdt.twin.patrol import Encode, quantise
from megdt.twin.perceptron import Array, Batch, Perceptron, Training, fit
from megdt.twin.replica import Replica
from megdt.twin.store import open_store
from megdt.worlds.garden import View
from megdt.worlds.scene import VIEW_EXTENT_M
from megdt.worlds.watering import STEP_H, Expert, Tally, WateredGarden, tend

STRIDE_M = 3
"""How far the camera walks from one view to the next: a view without its edges."""

FEATURES = (
    "fresh", "wilting", "log_fresh", "log_wilting", "wilting_share", "seen_days", "watered_days",
    "beside_watered_days", "watered_since_seen", "log_hours_there", "tank", "drying",
)  # fmt: skip
"""What a situation tells of each bed. Days are of the drying clock, three where it is longer ago."""

_OLDEST_H = 72.0
_CHOICES = 64  # a step of training


class GardenTwin:
    """What the twin knows of a garden that is being watered.

    A camera walks to and fro along the garden and sends a view as an int8 seed now and then; at the
    beginning all has been seen once. Ages are told on a clock that runs as fast as flowers dry: an
    hour of it is an hour under a clear sky.

    Args:
        garden: The camera looks at it, its weather is felt, and its drone reports. The water of its
            flowers is never read.
        encode: Of the bundle: pictures [batch, height, width, 3] to latents.
        counter: Counts the flowers of the replica; None for a twin without a replica, which knows
            times and weather only.
        every_h: From one view to the next; infinity for a replica that is never refreshed.

    Raises:
        TwinError: If every_h is not above 0.
    """

    def __init__(
        self,
        garden: WateredGarden,
        encode: Encode,
        counter: FlowerCounter | None,
        *,
        every_h: float = 2.0,
    ) -> None:
        if not every_h > 0:
            raise TwinError(
                f"a view every {every_h:g} h; give hours above 0, or infinity for no view"
            )
        self._garden, self._encode, self._counter = garden, encode, counter
        self._every_h = every_h
        self._store = open_store()
        self.replica = Replica.blank(VIEW_COLUMNS, garden.beds * COLUMNS_A_M)
        self._clock = [(garden.time_h, 0.0)]  # the garden's, and the drying clock
        self._watered_h = np.full(garden.beds, -_OLDEST_H)
        last = garden.beds - round(VIEW_EXTENT_M)
        self._stops = [*range(0, last, STRIDE_M), last]
        self._views = 0
        self._counts = np.zeros((garden.beds, 2))
        self._look(self._stops)

    def update(self, watered: int | None) -> None:
        """Take in what a step of the garden has brought.

        Args:
            watered: The bed that the drone reports, if it has watered one.
        """
        weather, now_h = self._garden.weather, self._garden.time_h
        dried_h = self._clock[-1][1] + STEP_H * weather.drying(now_h - STEP_H)
        self._clock.append((now_h, dried_h))
        if weather.rains(now_h - STEP_H):
            self._watered_h[:] = dried_h
        if watered is not None:
            self._watered_h[watered] = dried_h
        if now_h >= (self._views + 1) * self._every_h:
            self._views += 1
            last = len(self._stops) - 1
            at = self._views % (2 * last) if last else 0
            self._look([self._stops[min(at, 2 * last - at)]])

    def situation(self) -> Array:
        """What is known of each bed, as FEATURES names it. [beds, features]"""
        garden = self._garden
        fresh, wilting = self._counts.T
        seen_h = self._seen_h()
        beside_h = np.lib.stride_tricks.sliding_window_view(
            np.pad(self._watered_h, 1, mode="edge"), 3
        ).max(-1)
        ages = [
            np.minimum(self._clock[-1][1] - then, _OLDEST_H) / 24
            for then in (seen_h, self._watered_h, beside_h)
        ]
        every = np.ones(garden.beds)
        told = [
            fresh, wilting, np.log1p(fresh), np.log1p(wilting), wilting / (fresh + wilting + 0.1),
            *ages, self._watered_h > seen_h, np.log(garden.flight_h() + garden.drone.hover_h),
            every * garden.tank / garden.drone.tank, every * garden.weather.drying(garden.time_h),
        ]  # fmt: skip
        return np.column_stack(told).astype(np.float32)

    def _look(self, stops: Sequence[int]) -> None:
        """The camera looks from each stop, and the replica takes what it sees for sure."""
        if self._counter is None:
            return
        shown, width = self._garden.look(), self.replica.width
        views = [shown.render(View(position_m=stop + VIEW_EXTENT_M / 2)) for stop in stops]
        for stop, latents in zip(stops, quantise(self._encode(np.stack(views))), strict=True):
            first = stop * COLUMNS_A_M
            left = EDGE_COLUMNS * (first > 0)
            right = VIEW_COLUMNS - EDGE_COLUMNS * (first + VIEW_COLUMNS < width)
            self.replica.refresh(
                Feature(kind="observation", values=latents[:, :, left:right]),
                range(first + left, first + right),
                source=Side.ue(1),
                now_s=self._garden.time_h * 3600,
                store=self._store,
            )
        self._counts = self._counter.count(self.replica.values)

    def _seen_h(self) -> NDArray[np.float64]:
        """When each bed was seen, on the drying clock; long ago without a replica. [beds]"""
        if self._counter is None:
            return np.full(self._garden.beds, -_OLDEST_H)
        seen_s = self.replica.seen_s.mean(0).reshape(self._garden.beds, -1).mean(1)
        times_h, dried_h = np.array(self._clock).T
        then: NDArray[np.float64] = np.interp(seen_s / 3600, times_h, dried_h)
        return then


MakeTwin = Callable[[WateredGarden], GardenTwin]
"""A twin that begins to watch a garden."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Sends the drone to the bed that the expert would most likely choose.

    Args:
        network: Of what is known of a bed, to its score.
    """

    network: Perceptron

    @classmethod
    def kept(cls) -> Policy:
        """The one that comes with the package."""
        return cls(network=Perceptron.unpacked(read_kept()["policy"]))

    def scores(self, situation: Array) -> Array:
        """Logarithm of how likely each bed is the expert's choice, up to a constant.

        Args:
            situation: [..., beds, features]

        Returns:
            [..., beds]
        """
        scores: Array = self.network.run(situation)[..., 0]
        return scores

    def choose(self, twin: GardenTwin) -> int:
        """The bed to water next."""
        return int(np.argmax(self.scores(twin.situation())))


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What was known when the drone was to be sent, and where the expert would have sent it.

    Args:
        situations: [choices, beds, features]
        beds: [choices]
    """

    situations: Array
    beds: NDArray[np.int64]


def rollout(
    garden: WateredGarden, twin: GardenTwin, policy: Policy | Expert, *, hours: float
) -> tuple[Tally, Choices]:
    """Tend a garden, and note what the expert would have done each time.

    Args:
        garden: Goes on from where it is.
        twin: Watches it.
        policy: Tends it by what the twin knows; the expert by what is true.
        hours: How long.
    """
    expert = policy if isinstance(policy, Expert) else Expert()
    situations: list[Array] = []
    beds: list[int] = []

    def choose(now: WateredGarden) -> int:
        situations.append(twin.situation())
        beds.append(expert.choose(now))
        return beds[-1] if isinstance(policy, Expert) else policy.choose(twin)

    tally = tend(garden, choose, hours=hours, watch=twin.update)
    return tally, Choices(situations=np.array(situations), beds=np.array(beds))


def clone(choices: Sequence[Choices], *, rng_seed: int, training: Training | None = None) -> Policy:
    """The policy under which the expert's choices are most likely.

    Args:
        choices: Of gardens of one length.
        rng_seed: Draws first weights and batches.
        training: How.

    Raises:
        TwinError: If there are no choices.
    """
    if not sum(len(some.beds) for some in choices):
        raise TwinError("no choices of an expert to learn from; give gardens and hours")
    situations = np.concatenate([some.situations for some in choices])
    beds = np.concatenate([some.beds for some in choices])
    flat = situations.reshape(-1, len(FEATURES))

    def draw(rng: np.random.Generator) -> Batch:
        these = rng.integers(len(beds), size=_CHOICES)

        def slope(outputs: Array) -> Array:
            likely = np.exp(outputs - outputs.max(1, keepdims=True))
            likely /= likely.sum(1, keepdims=True)
            likely[np.arange(_CHOICES), beds[these]] -= 1
            return np.asarray(likely / _CHOICES, np.float32)

        return situations[these], slope

    how = Training() if training is None else training
    network = fit(
        draw, flat.mean(0), flat.std(0) + 1e-3, outputs=1, rng_seed=rng_seed, training=how
    )
    return Policy(network=network)


def imitate(
    make_twin: MakeTwin,
    gardens: Sequence[Sequence[int]],
    *,
    hours: float = 72.0,
    length_m: float = 32.0,
    rng_seed: int = 0,
    training: Training | None = None,
) -> list[Policy]:
    """Learn from the expert in virtual gardens.

    Args:
        make_twin: Of a garden, what the policy will see of it.
        gardens: The rng_seeds of each round's: in the first the expert tends them, in each later one
            the policy of the round before does.
        hours: In each garden.
        length_m: Of each.
        rng_seed: Draws first weights and batches.
        training: How.

    Returns:
        The policy after each round.
    """
    choices: list[Choices] = []
    policies: list[Policy] = []
    for seeds in gardens:
        tends = policies[-1] if policies else Expert()
        for seed in seeds:
            garden = WateredGarden(seed, length_m=length_m)
            choices.append(rollout(garden, make_twin(garden), tends, hours=hours)[1])
        policies.append(clone(choices, rng_seed=rng_seed, training=training))
    return policies
