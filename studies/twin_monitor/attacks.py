"""Attacks on what arrives, each with its strength."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt.records import Side
from megdt.twin.arrival import Arrival
from megdt.twin.patrol import DAY_S, Encode, Patrol, Report, look, quantise

Latents = NDArray[np.float32]
PULSE_DB = 3.0
"""By which a pulse raises the noise of the blocks that it breaks, all of them. It is the least for a link
without fading, whose blocks go from one error in ten to none decoded within 1 to 2 dB; where there is
fading, 10 dB break two thirds of the blocks, so a jammer is heard better."""
BLER = 0.1
"""Of the blocks that nobody hits."""
OTHER_GARDEN = 500_000
"""Added to the seed of a garden, that of the one that forged scenes are of."""


@dataclass(frozen=True)
class Attacker:
    """One UE, with all that it has at hand for each of its arrivals, by their numbers."""

    side: Side
    first_round: int
    other: Mapping[int, Latents]
    """The same columns of another garden."""
    shifted: Mapping[tuple[int, int], Latents]
    """By how many columns: a true view of another place."""
    past: Mapping[tuple[float, int], Latents]
    """By how many days: the same place before."""
    own: Mapping[int, Arrival]
    """What it sent itself."""

    @classmethod
    def prepare(
        cls, patrol: Patrol, reports: Sequence[Report], side: Side, settings: Mapping[str, Any], encode: Encode
    ) -> Attacker:  # fmt: skip
        """Sense and steal what the attacks of the settings need."""
        own = [r for r in reports if r.arrival.source == side]
        begun = [r for r in own if r.round >= settings["attack_from"]]
        rng = np.random.default_rng((patrol.rng_seed, 8, int(side.removeprefix("UE"))))
        numbers = [r.arrival.sequence for r in begun]
        columns = np.array([r.arrival.first_column for r in begun])
        noise = patrol.camera_noise

        def see(picture: NDArray[np.uint8], at: NDArray[np.int64]) -> Latents:
            return look(picture, at, encode, rng, noise=noise)

        alien = replace(patrol, rng_seed=patrol.rng_seed + OTHER_GARDEN)
        other = see(alien.garden(patrol.start_s).panorama(256), columns)
        shifted = {}
        for shift in settings["spoof_columns"]:
            # To the right where there is room, else to the left.
            at = np.where(columns + shift <= patrol.columns - 32, columns + shift, columns - shift)
            for r, column in zip(begun, at, strict=True):
                shifted[shift, r.arrival.sequence] = see(r.picture, np.array([column]))[0]
        past = {}
        for days in settings["replay_days"]:
            then = patrol.garden(patrol.start_s - days * DAY_S).panorama(256)
            past |= {
                (days, n): v for n, v in zip(numbers, see(then, columns), strict=True)
            }  # fmt: skip
        return cls(
            side=side, first_round=settings["attack_from"],
            other=dict(zip(numbers, other, strict=True)), shifted=shifted, past=past,
            own={r.arrival.sequence: r.arrival for r in own},
        )  # fmt: skip

    def acts(self, report: Report) -> bool:
        """Whether this is one of its attacks."""
        return report.arrival.source == self.side and report.round >= self.first_round


@dataclass(frozen=True)
class Attack:
    """What is done to an arrival."""

    name: str
    kind: str
    change: Callable[[Arrival, Attacker], Arrival]


def list_attacks(settings: Mapping[str, Any]) -> list[Attack]:
    """Every one, at every strength."""
    return [
        *(Attack(f"jammed by {x} dB", "jammed", jam(x)) for x in settings["jam_db"]),
        *(
            Attack(f"pulsed to a BLER of {x}", "jammed", pulse(x))
            for x in settings["pulse_bler"]
        ),
        Attack("message sent again", "replayed", again),
        Attack("message sent again with a new number", "replayed", renumbered),
        *(
            Attack(f"unseen picture of {x} days before", "replayed", from_past(x))
            for x in settings["replay_days"]
        ),
        *(Attack(f"other scene, {x:.0%}", "forged", forge(x)) for x in settings["forge_share"]),
        *(
            Attack(f"patch of {x} x {x}", "poisoned", poison(x))
            for x in settings["poison_latents"]
        ),
        *(
            Attack(f"{x} columns off", "spoofed", spoof(x))
            for x in settings["spoof_columns"]
        ),
    ]  # fmt: skip


def with_values(arrival: Arrival, values: Latents) -> Arrival:
    """The same, showing something else."""
    return replace(arrival, observation=replace(arrival.observation, values=quantise(values)))


def jam(loss_db: float) -> Callable[[Arrival, Attacker | None], Arrival]:
    """Noise over all of the band: the level rises by what the SNR loses; adaptation follows, so blocks
    get through as before.
    """

    def change(arrival: Arrival, _: Attacker | None) -> Arrival:
        noise_db = tuple(level + loss_db for level in arrival.noise_db or ())
        return replace(arrival, snr_db=arrival.snr_db - loss_db, noise_db=noise_db)

    return change


def pulse(
    bler: float, *, rise_db: float = PULSE_DB
) -> Callable[[Arrival, Attacker | None], Arrival]:
    """Noise between pilots in some slots: the SNR reads well, and the blocks there are lost."""

    def change(arrival: Arrival, _: Attacker | None) -> Arrival:
        rng = np.random.default_rng((arrival.sequence, arrival.first_column))
        blocks = arrival.blocks
        hit = rng.random(blocks) < (bler - BLER) / (1 - BLER)
        lost = np.arange(blocks) < arrival.block_errors
        noise_db = np.array(arrival.noise_db) + rise_db * hit
        return replace(
            arrival, noise_db=tuple(noise_db.tolist()),
            block_errors=int((hit | rng.permutation(lost)).sum()),
        )  # fmt: skip

    return change


def again(arrival: Arrival, attacker: Attacker) -> Arrival:
    """What it sent two rounds before, to the bit."""
    earlier = attacker.own[arrival.sequence - 2]
    return replace(earlier, arrived_s=arrival.arrived_s)


def renumbered(arrival: Arrival, attacker: Attacker) -> Arrival:
    """The same, under a new number, as seen just now."""
    return replace(again(arrival, attacker), sequence=arrival.sequence)


def from_past(days: float) -> Callable[[Arrival, Attacker], Arrival]:
    """A picture of this place that the monitor has never had, of days ago: no copy of anything."""
    return lambda a, attacker: with_values(a, attacker.past[days, a.sequence])


def forge(share: float) -> Callable[[Arrival, Attacker], Arrival]:
    """Another scene, mixed into the true one."""
    return lambda a, attacker: with_values(
        a, (1 - share) * a.observation.values + share * attacker.other[a.sequence]
    )


def poison(side: int) -> Callable[[Arrival, Attacker], Arrival]:
    """A square of another scene."""

    def change(arrival: Arrival, attacker: Attacker) -> Arrival:
        rng = np.random.default_rng((arrival.sequence, arrival.first_column, side))
        # Where it is believed: not in the edges of the view.
        top, left = rng.integers(0, 32 - side + 1), 4 + rng.integers(0, 24 - side + 1)
        values = arrival.observation.values.copy()
        part = (slice(None), slice(top, top + side), slice(left, left + side))
        values[part] = attacker.other[arrival.sequence][part]
        return with_values(arrival, values)

    return change


def spoof(columns: int) -> Callable[[Arrival, Attacker], Arrival]:
    """A true view of another place, said to be of where it is expected."""
    return lambda a, attacker: with_values(a, attacker.shifted[columns, a.sequence])
