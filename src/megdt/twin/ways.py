"""Ways to answer a text-to-image request, and what each was measured to take and to give.

A way is a plan without its size: mechanism, codecs, rate, handoff step, and the models of the bundle
that the UE must hold. `planner_costs.json`, written by `recipes/planner.py`, has for each way how far
its pictures are from the error-free one, what both sides compute, and how long the simulated link
took to carry it at each SNR, draw by draw. So a plan is judged by the same code that will carry it out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt.errors import TwinError
from megdt.mechanisms.single_user import (
    CENTRALIZED,
    ES_TO_UE,
    ES_TO_UE_SKETCH,
    ES_TO_UE_STEPS,
    PROMPT_ONLY,
)
from megdt.records import MAX_SIZE_PX, Kind, Plan

COSTS = Path(__file__).parent / "planner_costs.json"


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to answer, for any size.

    Args:
        name: As decisions, maps and the table of costs call it.
        mechanism: One of those for text-to-image.
        codecs: By kind, where it is not the default.
        rate: Bits a pixel of what crosses, where the codec has a rate.
        handoff_step: Denoising steps of the ES, where they are split.
        ue_models: Of the bundle, that the UE holds.
        up_to_px: Largest picture that it can make.
    """

    name: str
    mechanism: str
    codecs: Mapping[Kind, str] = field(default_factory=dict)
    rate: float | None = None
    handoff_step: int | None = None
    ue_models: tuple[str, ...] = ()
    up_to_px: int = MAX_SIZE_PX

    def plan(self, size_px: int) -> Plan:
        """What both ends agree on for a picture of this size."""
        bits = None if self.rate is None else round(self.rate * size_px**2)
        budget = {"image": "image_bits", "sketch": "sketch_bits"}.get(self.crosses, "seed_bits")
        budgets: dict[str, Any] = {} if bits is None else {budget: bits}
        return Plan(mechanism=self.mechanism, codecs=self.codecs, **budgets)

    @property
    def crosses(self) -> Kind:
        """What goes down to the UE, or the recipe."""
        kinds: dict[str, Kind] = {
            CENTRALIZED.name: "image", ES_TO_UE_SKETCH.name: "sketch", PROMPT_ONLY.name: "recipe",
        }  # fmt: skip
        return kinds.get(self.mechanism, "seed")


def _seed(name: str, codec: str, rate: float | None = None, models: tuple[str, ...] = ()) -> Way:
    return Way(
        name=name, mechanism=ES_TO_UE.name, codecs={"seed": codec}, rate=rate,
        ue_models=("decoder", *models),
    )  # fmt: skip


def _steps(name: str, codec: str, step: int) -> Way:
    # The student knows the denoiser's first grid only.
    return Way(
        name=name, mechanism=ES_TO_UE_STEPS.name, codecs={"seed": codec}, handoff_step=step,
        ue_models=("decoder", "student"), up_to_px=256,
    )  # fmt: skip


def _picture(codec: str, rate: float) -> Way:
    return Way(
        name=f"{codec} {rate:g}", mechanism=CENTRALIZED.name, codecs={"image": codec}, rate=rate
    )


_DRAWING = ("text_encoder", "denoiser", "encoder", "decoder")

WAYS: dict[str, Way] = {
    way.name: way
    for way in (
        _seed("seed int8", "int8"),
        _seed("seed analog", "analog"),
        _seed("seed 0.03", "progressive", 0.03),
        _seed("seed 0.05", "progressive", 0.05),
        _seed("seed 0.07", "progressive", 0.07),
        _seed("seed 0.1", "progressive", 0.1),
        _seed("seed 0.25", "progressive", 0.25),
        # On finer grids the denoiser does not mend what noise took: then it is the analog seed.
        replace(_seed("seed hybrid", "hybrid", models=("denoiser", "jscc")), up_to_px=256),
        _steps("steps 12 int8", "int8", 12),
        _steps("steps 12 analog", "analog", 12),
        _steps("steps 18 int8", "int8", 18),
        _steps("steps 18 analog", "analog", 18),
        Way(
            name="sketch", mechanism=ES_TO_UE_SKETCH.name, codecs={"sketch": "thumbnail"}, rate=0.03,
            ue_models=(*_DRAWING, "sketch_adapter"),
        ),
        _picture("webp", 0.25),
        _picture("webp", 0.5),
        _picture("webp", 1.0),
        _picture("avif", 0.25),
        Way(name="prompt", mechanism=PROMPT_ONLY.name, ue_models=_DRAWING),
    )
}  # fmt: skip


STEP_DB = 0.25
"""Of the SNR that costs are looked up at; a prediction is nowhere near as fine."""


@dataclass(frozen=True, kw_only=True)
class Sending:
    """What the link takes for one packet, by SNR. Lost draws last for ever.

    Args:
        latency_s: Of each draw, rising. [mcs_tables, snr, draws]
        airtime_s: With the sender on the air, on average. [mcs_tables, snr]
        feedback_s: With the receiver on the air. [mcs_tables, snr]
        radiated_j: By the sender, at the power that it was measured with. [mcs_tables, snr]
        feedback_radiated_j: By the receiver. [mcs_tables, snr]
    """

    latency_s: NDArray[np.float64]
    airtime_s: NDArray[np.float64]
    feedback_s: NDArray[np.float64]
    radiated_j: NDArray[np.float64]
    feedback_radiated_j: NDArray[np.float64]

    @cached_property
    def mean_s(self) -> NDArray[np.float64]:
        """Latency of what arrives; without end where nothing did. [mcs_tables, snr]"""
        came = np.isfinite(self.latency_s)
        total = np.where(came, self.latency_s, 0).sum(-1)
        return np.where(came.any(-1), total / np.maximum(came.sum(-1), 1), np.inf)


class Costs:
    """What every way takes and gives, by SNR from `snr_db[0]` on in steps of STEP_DB.

    Args:
        path: As `recipes/planner.py` writes it.

    Raises:
        TwinError: If it cannot be read, or is of other ways than WAYS.
    """

    def __init__(self, path: Path = COSTS) -> None:
        try:
            self._found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            known, sending = set(self._found["ways"]), self._found["sending"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TwinError(
                f"no readable costs at {path} ({error.__class__.__name__}); reinstall megdt, or "
                "measure them with recipes/planner.py"
            ) from error
        if known != set(WAYS):
            raise TwinError(
                f"{path} has the costs of {', '.join(sorted(known))}, the planner knows "
                f"{', '.join(sorted(WAYS))}; measure them anew with recipes/planner.py"
            )
        self.mcs_tables = tuple(int(table) for table in sending["tables"])
        self.tx_power_dbm = float(sending["tx_power_dbm"])
        self.bandwidth_hz = float(sending["bandwidth_hz"])
        low, high = sending["snr_db"][0], sending["snr_db"][-1]
        self.snr_db: NDArray[np.float64] = np.arange(low, high + STEP_DB / 2, STEP_DB)
        self.sizes_px = tuple(
            sorted({int(k) for way in self._found["ways"].values() for k in way if k.isdigit()})
        )
        self.pictures = min(len(self.hardness(size_px)) for size_px in self.sizes_px)
        """Measured at every size."""

    def memory_mb(self, way: Way) -> float:
        """Of the weights that the UE holds, as float32."""
        return sum(map(self.model_mb, way.ue_models))

    def model_mb(self, model: str) -> float:
        """Of the weights of one of the bundle's models, as float32."""
        return float(self._found["models_mb"][model])

    def decoder_flops(self, size_px: int) -> float:
        """Operations of the bundle's decoder for one picture: all that a UE does with a whole seed."""
        return float(self.flops(WAYS["seed int8"], size_px)[1][0])

    def ways(self, size_px: int) -> tuple[Way, ...]:
        """Those that can make a picture of this size.

        Raises:
            TwinError: If nothing was measured at this size.
        """
        if size_px not in self.sizes_px:
            raise TwinError(
                f"size_px is {size_px}, costs were measured at {', '.join(map(str, self.sizes_px))}; "
                "ask for one of these, or measure it with recipes/planner.py"
            )
        return tuple(w for w in WAYS.values() if str(size_px) in self._found["ways"][w.name])

    def flops(self, way: Way, size_px: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Operations of the networks on ES and UE. [snr], [snr]"""
        costs = self._found["ways"][way.name][str(size_px)]
        return self._by_snr(costs["es_flops"]), self._by_snr(costs["ue_flops"])

    def core_s(self, way: Way, size_px: int) -> tuple[float, float]:
        """Seconds that codecs take of a core on ES and UE, at the SNR where they take most."""
        costs = self._found["ways"][way.name][str(size_px)]
        return max(costs["es_core_s"]), max(costs["ue_core_s"])

    def distance(self, way: Way, size_px: int) -> NDArray[np.float64]:
        """ST-LPIPS of each measured picture to the error-free one. [snr, pictures]"""
        values = np.array(self._found["ways"][way.name][str(size_px)]["distance"], float)
        if len(values) == 1:
            values = np.repeat(values, len(self._found["snr_db"]), 0)
        columns = [np.interp(self.snr_db, self._found["snr_db"], c) for c in values.T]
        return np.stack(columns, 1)

    def hardness(self, size_px: int) -> NDArray[np.float64]:
        """Of the same pictures. [pictures, bands]"""
        return np.array(self._found["hardness"][str(size_px)], float)

    def sending(self, way: Way | None, size_px: int) -> Sending:
        """Of what a way sends to the UE, or of the prompt for None."""
        key = "ask" if way is None else f"{way.name} {size_px}"
        rows = [table[key] for table in self._found["sending"]["tables"].values()]
        # What was lost, -1, never comes; between SNRs a draw is lost where it was at either.
        ms = np.array([row["latency_ms"] for row in rows], float)
        latency = self._sent_by_snr(np.where(ms < 0, np.inf, ms).swapaxes(1, 2)).swapaxes(1, 2)
        means = {
            name: self._sent_by_snr(np.array([row[name] for row in rows], float))
            for name in ("airtime_s", "feedback_s", "radiated_j", "feedback_radiated_j")
        }
        return Sending(latency_s=latency / 1000, **means)

    def _by_snr(self, values: list[float] | NDArray[np.float64]) -> NDArray[np.float64]:
        """What was measured at the SNRs of the quality, or at one for all. [snr]"""
        if len(values) == 1:
            return np.full(self.snr_db.size, float(values[0]))
        found: NDArray[np.float64] = np.interp(self.snr_db, self._found["snr_db"], values)
        return found

    def _sent_by_snr(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The last axis from the SNRs of the sending to all. [..., snr]"""
        known = self._found["sending"]["snr_db"]
        place = np.interp(self.snr_db, known, np.arange(len(known)))
        below, above = np.floor(place).astype(int), np.ceil(place).astype(int)
        low, high = values[..., below], values[..., above]
        there = np.isfinite(low) & np.isfinite(high)
        rise = np.where(there, high, 0) - np.where(there, low, 0)
        found: NDArray[np.float64] = np.where(there, low + (place - below) * rise, np.inf)
        return found


@lru_cache
def load_costs() -> Costs:
    """Those that come with the package, read once."""
    return Costs()
