"""Tracks: UEs that go along a grid of streets, turn and stop at crossings."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt.errors import WorldError

BLOCK_M = 80.0
"""From one crossing to the next."""

_ACCELERATE, _BRAKE, _SIDEWAYS = 1.5, 2.5, 2.0
"""What drivers and walkers take, metres a second squared."""

_SUBSTEP_S = 0.1
_STEPS = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])
"""One crossing on in each heading, counted in quarter turns."""


def walk_streets(
    rng_seed: int,
    *,
    ues: int,
    duration_s: float,
    step_s: float = 0.1,
    speed_m_s: float = 1.5,
    blocks: int = 6,
    stopping: float = 0.3,
) -> NDArray[np.float64]:
    """Move UEs along the streets of a square of blocks around the origin.

    At each crossing half of them go on and a quarter turns to either side, slowing down for it;
    some stop before it and wait six seconds on average.

    Args:
        rng_seed: Decides everything; the same seed gives the same tracks everywhere.
        ues: How many.
        duration_s: How long.
        step_s: Between positions; a multiple of 0.1.
        speed_m_s: Of a UE that nothing slows, give or take a quarter.
        blocks: A side of the square.
        stopping: Share of crossings at which a UE stops.

    Returns:
        Where they are at 0, step_s, ... duration_s. [steps + 1, ues, 2]

    Raises:
        WorldError: If a number is out of its range.
    """
    substeps = round(step_s / _SUBSTEP_S)
    if substeps < 1 or not math.isclose(substeps * _SUBSTEP_S, step_s):
        raise WorldError(f"step_s is {step_s:g}; tracks move in steps of 0.1, give a multiple")
    if not 0 < speed_m_s <= 30 or ues < 1 or blocks < 1 or not 0 <= duration_s <= 1e5:
        raise WorldError(
            f"no tracks of {ues} UEs at {speed_m_s:g} m/s for {duration_s:g} s on {blocks} blocks; "
            "give 1 or more UEs and blocks, a speed to 30 and a time to 100000"
        )
    traffic = _Traffic(np.random.default_rng((rng_seed, 22)), ues, speed_m_s, blocks, stopping)
    found = [traffic.place_m.copy()]
    for _ in range(round(duration_s / step_s)):
        for _ in range(substeps):
            traffic.step()
        found.append(traffic.place_m.copy())
    return np.stack(found)


def go_along(
    rng_seed: int, time_s: float, *, ues: int, length_m: float, speed_m_s: float
) -> NDArray[np.float64]:
    """Where UEs are that go to and fro along a line, each at its own speed.

    Args:
        rng_seed: Draws speeds, and where they begin; the same seed gives the same everywhere.
        time_s: When.
        ues: How many; the first ones are the same, however many there are.
        length_m: Of the line, eastwards from 0.
        speed_m_s: Give or take a quarter.

    Returns:
        Each on a line of its own, half a metre apart. [ues, 2]

    Raises:
        WorldError: If a number is out of its range.
    """
    if ues < 1 or not 0 < length_m < math.inf or not 0 < speed_m_s <= 100:
        raise WorldError(
            f"{ues} UEs cannot go along {length_m:g} m at {speed_m_s:g} m/s; give 1 or more, a length and "
            "a speed above 0"
        )
    drawn = np.random.default_rng((rng_seed, 25)).uniform(size=(ues, 2))
    went_m = 2 * length_m * drawn[:, 0] + speed_m_s * (0.75 + 0.5 * drawn[:, 1]) * time_s
    east_m = length_m - np.abs(went_m % (2 * length_m) - length_m)
    return np.stack([east_m, 0.5 * np.arange(ues)], -1)


class _Traffic:
    """All UEs at one time. A corner is an arc that begins `radius_m` before the crossing."""

    def __init__(
        self, rng: np.random.Generator, ues: int, speed_m_s: float, blocks: int, stopping: float
    ) -> None:
        self.rng, self.blocks, self.stopping = rng, blocks, stopping
        self.cruise = speed_m_s * rng.uniform(0.75, 1.25, ues)
        self.radius_m = np.full(ues, min(max(speed_m_s * 0.8, 1.5), 9.0))
        self.speed = self.cruise.copy()
        self.waiting_s = np.zeros(ues)
        self.turned = np.zeros(ues)  # radians of the present corner
        self.turning = np.zeros(ues, bool)
        crossing = rng.integers(0, blocks + 1, (ues, 2))
        headings = np.array(
            [rng.choice([h for h in range(4) if self._inside(c + _STEPS[h])]) for c in crossing]
        )
        self.heading = headings * math.pi / 2
        self.next = crossing + _STEPS[headings]  # the crossing ahead
        on = rng.uniform(0.1, 0.8, ues) * BLOCK_M
        middle = blocks * BLOCK_M / 2
        self.place_m = crossing * BLOCK_M - middle + on[:, None] * _STEPS[headings]
        self.ahead_m = BLOCK_M - on - self.radius_m  # until what is planned at that crossing
        self.turn = np.zeros(ues, int)  # -1 right, 0 on, 1 left
        self.stops = np.zeros(ues, bool)
        self._plan(np.ones(ues, bool))

    def _inside(self, crossing: NDArray[Any]) -> Any:
        return ((crossing >= 0) & (crossing <= self.blocks)).all(-1)

    def _quarter(self) -> NDArray[np.int64]:
        return np.round(self.heading / (math.pi / 2)).astype(np.int64)

    def _plan(self, these: NDArray[np.bool_]) -> None:
        """Decide what is done at the crossing ahead."""
        options = np.array([-1, 0, 1])
        quarter = self._quarter()
        goes = np.stack(
            [self._inside(self.next + _STEPS[(quarter + turn) % 4]) for turn in options], -1
        )
        weights = np.array([0.25, 0.5, 0.25]) * goes
        cumulative = np.cumsum(weights, -1) / weights.sum(-1, keepdims=True)
        chosen = options[(self.rng.uniform(size=(len(these), 1)) > cumulative).sum(-1)]
        stops = self.rng.uniform(size=len(these)) < self.stopping
        self.turn = np.where(these, chosen, self.turn)
        self.stops = np.where(these, stops, self.stops)

    def step(self) -> None:
        """Move on by 0.1 s."""
        dt = _SUBSTEP_S
        slow = np.minimum(self.cruise, np.sqrt(_SIDEWAYS * self.radius_m))
        at_crossing = np.where(self.stops, 0.0, np.where(self.turn != 0, slow, self.cruise))
        in_time = np.sqrt(at_crossing**2 + 2 * _BRAKE * np.maximum(self.ahead_m, 0.0))
        wanted = np.where(self.turning, slow, np.minimum(self.cruise, in_time))
        wanted = np.where(self.waiting_s > 0, 0.0, wanted)
        self.speed = np.clip(wanted, self.speed - 2 * _BRAKE * dt, self.speed + _ACCELERATE * dt)
        self.waiting_s = np.maximum(self.waiting_s - dt, 0.0)
        went_m = self.speed * dt
        bend = np.where(self.turning, went_m / self.radius_m, 0.0)
        self.heading += self.turn * bend / 2  # half before and half after: the chord of the arc
        self.place_m += went_m[:, None] * np.stack([np.cos(self.heading), np.sin(self.heading)], -1)
        self.heading += self.turn * bend / 2
        self.turned += bend
        self.ahead_m = np.where(self.turning, self.ahead_m, self.ahead_m - went_m)

        there = ~self.turning & (self.ahead_m <= 0.05)
        halts = there & self.stops
        self.waiting_s = np.where(halts, self.rng.exponential(6.0, len(there)), self.waiting_s)
        self.stops &= ~halts
        leaves = there & ~halts & (self.waiting_s == 0)
        self.turning |= leaves & (self.turn != 0)
        self._go_on(leaves & (self.turn == 0), BLOCK_M)
        done = self.turning & (self.turned >= math.pi / 2)
        self.heading = np.where(done, self._quarter() * math.pi / 2, self.heading)
        self.turned = np.where(done, 0.0, self.turned)
        self.turning &= ~done
        # Of the block from crossing to crossing, the corner has had a radius at either end.
        self._go_on(done, BLOCK_M - 2 * self.radius_m)

    def _go_on(self, these: NDArray[np.bool_], ahead_m: Any) -> None:
        self.next = np.where(these[:, None], self.next + _STEPS[self._quarter() % 4], self.next)
        self.ahead_m = np.where(these, self.ahead_m + ahead_m, self.ahead_m)
        if these.any():
            self._plan(these)
