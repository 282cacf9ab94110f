"""What every candidate takes and gives on one kind of UE at one size, at each SNR."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megdt.errors import TwinError
from megdt.link.energy import DeviceProfile
from megdt.twin.variants import Variant
from megdt.twin.ways import STEP_DB, Costs, Sending, Way

BACKOFFS_DB = (0, 6)
"""Below the power that the costs were measured with: candidates for the transmit power."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Equipment:
    """What a UE is.

    Args:
        profile: Its speed and power.
        memory_mb: What it may fill with weights of models; 0 for a UE that shows pictures only.
        variants: Smaller sub-models that it has, besides the bundle's; the first plan for a kind of UE takes a
            second more with each.

    Raises:
        TwinError: If two variants have one name, by which plans tell them apart.
    """

    profile: DeviceProfile
    memory_mb: float = math.inf
    variants: tuple[Variant, ...] = ()

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.variants]
        if twice := {name for name in names if names.count(name) > 1}:
            raise TwinError(
                f"two folders of smaller models are called {', '.join(sorted(twice))}; rename one of them"
            )


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A way over a link.

    Args:
        way: What runs where, and how it crosses.
        mcs_table: Of TS 38.214; see `LinkAdaptation`.
        backoff_db: Transmit power below the full one.
        variant: Sub-models that the UE runs in place of the bundle's; None for the bundle's own.
    """

    way: Way
    mcs_table: int
    backoff_db: int
    variant: Variant | None = None

    @property
    def answer(self) -> str:
        """How the request is answered, for people."""
        return self.way.name + (f" by {self.variant.name}" if self.variant is not None else "")

    @property
    def name(self) -> str:
        """All of it, for people."""
        power = f", {-self.backoff_db} dB" if self.backoff_db else ""
        return f"{self.answer}, MCS table {self.mcs_table}{power}"


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What each candidate takes and gives on one kind of UE at one size, by SNR.

    SNR is that at full power; a candidate's own is `backoff_db` below.
    """

    candidates: tuple[Candidate, ...]
    latency_s: Floats
    """Of each draw, rising; without end for lost. [candidates, snr, draws]"""
    mean_s: Floats
    """[candidates, snr]"""
    ue_j: Floats
    """[candidates, snr]"""
    both_j: Floats
    """[candidates, snr]"""
    distance: Floats
    """Of each measured picture. [candidates, snr, pictures]"""


def look_out(costs: Costs, es: DeviceProfile, equipment: Equipment, size_px: int) -> Outlook:
    """Every candidate that the UE has the memory for. A way of pictures needs none, so there is one."""
    candidates: list[Candidate] = []
    columns: list[tuple[Floats, ...]] = []
    ask = costs.sending(None, size_px)
    for way in costs.ways(size_px):
        down = costs.sending(way, size_px)
        for variant in _fitting(costs, way, equipment, size_px):
            (es_flops, ue_flops), distance = _count(costs, way, variant, size_px)
            work = _Work(
                es_s=es.compute_s(1.0) * es_flops,
                ue_s=equipment.profile.compute_s(1.0) * ue_flops,
                core_s=costs.core_s(way, size_px),
            )
            for backoff_db in BACKOFFS_DB:
                # At less power the SNR is that much lower, and below the measured ones like the lowest.
                place = np.maximum(np.arange(costs.snr_db.size) - round(backoff_db / STEP_DB), 0)
                per_table = _price(way, work, es, equipment.profile, ask, down, backoff_db)
                for row, table in enumerate(costs.mcs_tables):
                    candidates.append(
                        Candidate(way=way, mcs_table=table, backoff_db=backoff_db, variant=variant)
                    )
                    columns.append((*(v[row][place] for v in per_table), distance[place]))
    latency_s, mean_s, ue_j, both_j, distances = (
        np.stack(values) for values in zip(*columns, strict=True)
    )
    return Outlook(
        candidates=tuple(candidates), latency_s=latency_s, mean_s=mean_s, ue_j=ue_j, both_j=both_j,
        distance=distances,
    )  # fmt: skip


def _fitting(
    costs: Costs, way: Way, equipment: Equipment, size_px: int
) -> Iterator[Variant | None]:
    """With which sub-models a UE has room for a way: None for the bundle's own."""
    if costs.memory_mb(way) <= equipment.memory_mb:
        yield None
    for variant in equipment.variants:
        if variant.serves(way, size_px) and variant.memory_mb(costs, way) <= equipment.memory_mb:
            yield variant


def _count(
    costs: Costs, way: Way, variant: Variant | None, size_px: int
) -> tuple[tuple[Floats, Floats], Floats]:
    """Operations of ES and UE, and distances. ([snr], [snr]), [snr, pictures]"""
    es_flops, ue_flops = costs.flops(way, size_px)
    if variant is None:
        return (es_flops, ue_flops), costs.distance(way, size_px)
    return (
        (es_flops, variant.ue_flops(costs, way, size_px)),
        variant.distance(costs, way, size_px),
    )


@dataclass(frozen=True, kw_only=True)
class _Work:
    """Seconds of both sides' networks, and of codecs on ES and UE."""

    es_s: Floats
    """[snr]"""
    ue_s: Floats
    """[snr]"""
    core_s: tuple[float, float]


def _price(
    way: Way, work: _Work, es: DeviceProfile, ue: DeviceProfile, ask: Sending, down: Sending,
    backoff_db: int,
) -> tuple[Floats, Floats, Floats, Floats]:  # fmt: skip
    """Latency of each draw, its mean, and joules of the UE and of both: the ledger's sums, in expectation.

    Mechanisms with one UE are chains, so what they take adds up.
    """
    es_s, ue_s, (es_core_s, ue_core_s) = work.es_s, work.ue_s, work.core_s
    computing_s = es_s + ue_s + es_core_s + ue_core_s
    latency_s, on_air_s = down.latency_s, down.mean_s
    asked = way.crosses != "recipe"  # with a recipe the ES has the prompt already
    if asked:
        # Both directions are drawn apart: any draw of one goes with any of the other.
        mixed = np.random.default_rng(0).permutation(ask.latency_s.shape[-1])
        latency_s = np.sort(latency_s + ask.latency_s[..., mixed], -1)
        on_air_s = on_air_s + ask.mean_s
    mean_s = on_air_s + computing_s
    power = 10 ** (-backoff_db / 10)
    sender, taker = _radio_j(down, es, ue, power)
    radio = {"es": sender, "ue": taker}
    if asked:
        sender, taker = _radio_j(ask, ue, es, power)
        radio = {"es": radio["es"] + taker, "ue": radio["ue"] + sender}
    joules = {}
    for side, device, seconds, core_s in (
        ("es", es, es_s, es_core_s), ("ue", ue, ue_s, ue_core_s),
    ):  # fmt: skip
        joules[side] = (
            radio[side]
            + device.compute_power_w * seconds
            + device.core_power_w * core_s
            + device.compute_idle_power_w * (mean_s - seconds - core_s)
            + device.radio_idle_power_w * computing_s
        )
    return latency_s + computing_s[:, None], mean_s, joules["ue"], joules["es"] + joules["ue"]


def _radio_j(
    sending: Sending, sender: DeviceProfile, taker: DeviceProfile, power: float
) -> tuple[Floats, Floats]:
    """Joules of the radios of who sends and who takes, as `mechanisms.execute` charges them."""
    waiting_s = np.maximum(sending.mean_s - sending.airtime_s - sending.feedback_s, 0)
    sender_j = (
        power * sending.radiated_j / sender.amplifier_efficiency
        + sending.airtime_s * sender.transmit_circuit_power_w
        + sending.feedback_s * sender.receive_power_w
        + waiting_s * sender.radio_idle_power_w
    )
    taker_j = (
        sending.airtime_s * taker.receive_power_w
        + power * sending.feedback_radiated_j / taker.amplifier_efficiency
        + sending.feedback_s * taker.transmit_circuit_power_w
        + waiting_s * taker.radio_idle_power_w
    )
    return sender_j, taker_j
