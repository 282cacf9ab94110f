"""A site simulated: every mechanism, codec and link that the twin's loop uses is the real one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from megdt.errors import MissingExtraError
from megdt.link.channels import MAX_SNR_DB, MIN_SNR_DB
from megdt.mechanisms.execute import CoreSeconds
from megdt.mechanisms.panorama import VIEW_COLUMNS
from megdt.mechanisms.single_user import ES_TO_UE, PROMPT_ONLY, UE_TO_ES
from megdt.models import FACTOR
from megdt.records import Crossing, Feature, Part, Request, Result, Side
from megdt.scenario import Scenario, parse_scenario
from megdt.scenario.twin import TwinScenario
from megdt.site.radio import make_ground
from megdt.site.scenery import VIEW_PX, GardenScenery, make_scenery
from megdt.twin.arrival import Arrival
from megdt.twin.loop import Served, Upload, Wish
from megdt.twin.network import Beacon, Place
from megdt.twin.outlook import Equipment
from megdt.twin.patrol import as_observation
from megdt.twin.planner import Decision, Planner
from megdt.twin.store import Store
from megdt.twin.twin import Twin
from megdt.twin.variants import Variant, read_variant
from megdt.twin.ways import WAYS, Way, load_costs
from megdt.worlds.captions import attributes, phrase
from megdt.worlds.garden import draw_view
from megdt.worlds.scene import VIEW_EXTENT_M

if TYPE_CHECKING:
    from megdt.models.bundle import Bundle

BEACONS_S = (2.0, 1.0, 0.0)
"""Before a round, when UEs tell of themselves."""

_CAMERA_NOISE = 2.0
_CALIBRATION_DB = 0.4
"""Standard deviation of the noise that a station thinks it has itself."""
_JAMMED_DB, _JAMMED_BLER = 10.0, 0.6
_SPOOFED_COLUMNS = 16


class SimulatedSite:
    """The world of a scenario, round by round.

    Args:
        scenario: What there is in it.
        bundle: Its sub-models, of all sides.
        start_s: When the first round's interval begins; `begin_s` for a twin that goes on.

    Raises:
        WorldError: If there is no such scene.
        MissingExtraError: If the scene needs an extra.
        BundleError, TwinError: If a folder of smaller sub-models cannot be planned with.
    """

    def __init__(self, scenario: TwinScenario, bundle: Bundle, *, start_s: float = 0.0) -> None:
        self.scenario, self._bundle = scenario, bundle
        self.scenery = make_scenery(scenario.scene)
        self.ground = make_ground(scenario, self.scenery.columns * VIEW_EXTENT_M / VIEW_COLUMNS)
        self.now_s = start_s
        self.equipment = Equipment(
            profile=scenario.devices.profiles((Side.UE,))[Side.UE],
            memory_mb=scenario.ues.memory_mb,
            variants=tuple(read_variant(Path(folder)) for folder in scenario.ues.variants),
        )
        self._smaller = self._open_variants()

    def _open_variants(self) -> dict[Path, Any]:
        """Now, so that what is wrong with a folder is said before the first round."""
        if not self.equipment.variants:
            return {}
        from megdt.models.variant import VariantModels  # torch, ONNX Runtime

        found = {}
        for variant in self.equipment.variants:
            models = VariantModels(variant.folder, self._bundle)
            models.load(*(model.part for model in variant.models))
            found[variant.folder] = models
        return found

    @cached_property
    def place(self) -> Place:
        """What is known of it beforehand."""
        extent, ues = self.ground.extent, self.scenario.ues
        return Place(
            columns=self.scenery.columns,
            laws=self.ground.laws,
            motion=self.ground.motion,
            columns_per_m=self.scenery.columns / extent.width_m,
            origin_m=extent.west_m,
            position_noise_m=ues.position_noise_m,
            snr_noise_db=self.scenario.radio.snr_noise_db,
            bandwidth_hz=self.scenario.radio.bandwidth_hz,
        )

    @property
    def conditions(self) -> Mapping[str, str]:
        """Sky and weather now."""
        return self.scenery.conditions

    @property
    def panorama(self) -> NDArray[np.uint8]:
        """The scene as it is now. RGB [256, 8 * columns, 3]"""
        return self.scenery.panorama(self.now_s)

    def tick(self) -> float:
        """Go on to the next round."""
        self.now_s += self.scenario.twin.interval_s
        return self.now_s

    def beacons(self) -> Sequence[Beacon]:
        """What UEs have told in the last two seconds."""
        rng, scenario, found = self._rng(1), self.scenario, []
        for before_s in BEACONS_S:
            at_s = self.now_s - before_s
            true_m = self.ground.positions_m(at_s)
            heard = self._snr_db(true_m, at_s)
            noise_m = scenario.ues.position_noise_m * rng.standard_normal(true_m.shape)
            noise_db = scenario.radio.snr_noise_db * rng.standard_normal(heard.shape)
            found.append(
                Beacon(
                    time_s=at_s,
                    position_m=true_m + noise_m,
                    snr_db=np.clip(heard + noise_db, MIN_SNR_DB, MAX_SNR_DB),
                )
            )
        return found

    def upload(self, side: Side) -> Upload:
        """Send a UE's view up by `ue_to_es`, as an attacker would if it is one."""
        attack = self._attack_of(side)
        # Who replays has kept what it saw when it began.
        seen_s = self._attacked_s if attack == "replayed" else self.now_s
        rng = self._rng(2, side.number)
        place_m = self.ground.positions_m(self.now_s)
        column = self._column(side, self.now_s)
        snr_db = float(np.nanmax(self._snr_db(place_m, self.now_s)[side.number - 1]))
        result = self._scenario(
            Request(prompt="what the UE sees", rng_seed=int(rng.integers(2**31))),
            {"plan": {"mechanism": UE_TO_ES.name}, "codecs": {"seed": "int8"}},
            snr_db,
        ).run(
            self._bundle,
            done=Part(features={"sense": self._look(side, seen_s, attack)}),
            core_s=self._core_s(WAYS["seed int8"], VIEW_PX),
        )
        crossing = result.ledger.crossings[0]
        seed = result.arrived.get(("encode", Side.ES))
        arrival = None
        if seed is not None:
            blocks, errors = crossing.blocks, crossing.failed_first
            if attack == "jammed":
                errors = max(errors, int(rng.binomial(blocks, _JAMMED_BLER)))
            elif attack == "spoofed":
                away = _SPOOFED_COLUMNS if column < self.place.columns // 2 else -_SPOOFED_COLUMNS
                column += away
            noise_db = self.scenario.radio.snr_noise_db * rng.standard_normal()
            arrival = Arrival(
                source=side,
                sequence=round(self.now_s),  # counts up, whenever a twin is opened again
                observation=as_observation(seed.values),
                first_column=column,
                snr_db=float(np.clip(snr_db + noise_db, MIN_SNR_DB, MAX_SNR_DB)),
                blocks=blocks,
                block_errors=errors,
                noise_db=self._noise_db(crossing, attack, rng),
                arrived_s=self.now_s,
            )
        return Upload(
            side=side, arrival=arrival, bits=crossing.bits, energy_j=result.ledger.energy_j
        )

    def wishes(self) -> Sequence[Wish]:
        """Sentences about views of other gardens, of UEs that are drawn anew each round."""
        rng, asked = self._rng(3), self.scenario.requests
        ues = self.scenario.ues.count
        found = []
        for ue in rng.permutation(ues)[: asked.each_round]:
            garden, view = draw_view(int(rng.integers(2**31)))
            prompt = phrase(attributes(garden.truth(view)), rng)
            found.append(
                Wish(
                    side=Side.ue(int(ue) + 1),
                    request=Request(
                        prompt=prompt, size_px=asked.size_px, rng_seed=int(rng.integers(2**31))
                    ),
                    deadline_s=asked.deadline_s,
                    max_distance=asked.max_distance,
                )
            )
        return found

    def serve(self, wish: Wish, decision: Decision, station: int) -> Served:
        """Run the mechanism that was planned, at the SNR that there is by then."""
        at_s = self.now_s + 1.0
        snr_db = self._snr_db(self.ground.positions_m(at_s), at_s)[wish.side.number - 1]
        # A station that is out of order by then sends into the void.
        heard = np.nan_to_num(snr_db, nan=MIN_SNR_DB)[station - 1]
        backoff_db = float(decision.candidate.backoff_db)
        scenario = self._scenario(wish.request, decision.tables, float(heard), backoff_db)
        core_s = self._core_s(decision.candidate.way, wish.request.size_px)
        result = scenario.run(self._models(decision.candidate.variant), core_s=core_s)
        ledger = result.ledger
        return Served(
            outcome=result.outcome,
            latency_s=ledger.duration_s + decision.ahead_s,
            bits=ledger.bits,
            ue_energy_j=ledger.energy_of(Side.UE),
            energy_j=ledger.energy_j,
            distance=self._distance(wish.request, decision, result),
        )

    def _models(self, variant: Variant | None) -> Any:
        """The bundle, with what a UE runs in place of parts of it."""
        return self._bundle if variant is None else self._smaller[variant.folder]

    def _core_s(self, way: Way, size_px: int) -> CoreSeconds:
        """What codecs take, as measured beforehand: so that a twin that is run again is the same."""
        encode_s, decode_s = load_costs().core_s(way, size_px)
        told = {f"encode {way.crosses}": encode_s, f"decode {way.crosses}": decode_s}
        return lambda _, task: told.get(task, 0.0)

    def _distance(self, request: Request, decision: Decision, result: Result) -> float | None:
        """ST-LPIPS to the picture of the error-free latent; None without its weights or a picture."""
        if result.image is None:
            return None
        if decision.plan.mechanism == PROMPT_ONLY.name:
            return 0.0  # the UE draws what the ES would have drawn
        from megdt.models.quality import (
            perceptual_distance,  # torch, and weights that may be missing
        )

        latent = result.features.get("denoise")
        if latent is None:
            whole = self._scenario(request, {"plan": {"mechanism": ES_TO_UE.name}}, MAX_SNR_DB)
            latent = whole.run(self._bundle).features["denoise"]
        reference = self._bundle.decode(latent.values[None])
        try:
            return float(perceptual_distance(result.image[None], reference)[0])
        except MissingExtraError:
            return None

    def _scenario(
        self,
        request: Request,
        tables: Mapping[str, Mapping[str, Any]],
        snr_db: float,
        backoff_db: float = 0.0,
    ) -> Scenario:
        """Of one generation, at an SNR that is heard at full power."""
        radio = self.scenario.radio
        asked = {
            "prompt": request.prompt, "size_px": request.size_px, "rng_seed": request.rng_seed,
            **tables.get("request", {}),
        }  # fmt: skip
        link = {
            **tables.get("link", {}),
            "snr_db": float(np.clip(snr_db - backoff_db, MIN_SNR_DB, MAX_SNR_DB)),
            "tx_power_dbm": radio.tx_power_dbm - backoff_db, "coding": "abstract",
            "bandwidth_hz": radio.bandwidth_hz, "carrier_frequency_hz": radio.carrier_frequency_hz,
        }  # fmt: skip
        devices = {"es": self.scenario.devices.es, "ue": self.scenario.devices.ue}
        return parse_scenario({**tables, "request": asked, "link": link, "devices": devices})

    def _look(self, side: Side, time_s: float, attack: str) -> Feature:
        """What a camera saw at a time, or what it says it saw."""
        picture, column = self.scenery.panorama(time_s), self._column(side, time_s)
        rng = self._rng(4, side.number, time_s=time_s)
        if attack == "forged":
            other = self.scenario.scene.rng_seed + 1
            scene = replace(self.scenario.scene, rng_seed=other)
            picture = GardenScenery(scene).panorama(time_s)
            column = min(column, picture.shape[1] // FACTOR - VIEW_COLUMNS)
        size = VIEW_COLUMNS * FACTOR
        view = picture[:, column * FACTOR : column * FACTOR + size]
        noisy = np.rint(view + rng.normal(0, _CAMERA_NOISE, view.shape)).clip(0, 255)
        return Feature(kind="image", values=noisy.astype(np.uint8))

    def _snr_db(self, positions_m: NDArray[np.float64], time_s: float) -> NDArray[np.float64]:
        """True means, with what a jammer takes of them. [ues, stations]"""
        found = self.ground.snr_db(positions_m, time_s)
        ue = self.scenario.attack.ue
        if self.scenario.attack.kind == "jammed" and self._attack_of(Side.ue(ue)) == "jammed":
            found[ue - 1] = np.clip(found[ue - 1] - _JAMMED_DB, MIN_SNR_DB, MAX_SNR_DB)
        return found

    def _noise_db(
        self, crossing: Crossing, attack: str, rng: np.random.Generator
    ) -> tuple[float, ...]:
        """What a station measures over thermal noise in each block; there are no other cells."""
        blocks = crossing.blocks
        elements = max(crossing.uses.data // max(blocks, 1), 1)
        estimates = 10 / np.log(10) / elements**0.5 * rng.standard_normal(blocks)
        level_db = _CALIBRATION_DB * rng.standard_normal() + (attack == "jammed") * _JAMMED_DB
        return tuple((level_db + estimates).tolist())

    def _attack_of(self, side: Side) -> str:
        """What a UE does that it should not, or what is done to it."""
        attack = self.scenario.attack
        active = side.number == attack.ue and self.now_s >= self._attacked_s
        return attack.kind if active else "none"

    @property
    def _attacked_s(self) -> float:
        """Since when: rounds count from the twin's time 0 on, whenever it was opened."""
        return (self.scenario.attack.from_round + 1) * self.scenario.twin.interval_s

    def _column(self, side: Side, time_s: float) -> int:
        """Where a UE's view begins."""
        x_m = self.ground.positions_m(time_s)[side.number - 1, 0]
        return round(self.place.first_column(float(x_m)))

    def _rng(self, *what: int, time_s: float | None = None) -> np.random.Generator:
        """Of one thing at one time, now where left out, whatever else was drawn."""
        at_ms = round((self.now_s if time_s is None else time_s) * 1000)
        return np.random.default_rng((self.scenario.scene.rng_seed, 41, at_ms, *what))


def open_twin(scenario: TwinScenario, site: SimulatedSite, store: Store, bundle: Bundle) -> Twin:
    """The twin of a simulated site, as a store has it."""
    return Twin(
        site.place,
        scenario.ues.count,
        store=store,
        planner=Planner(
            es=scenario.devices.profiles((Side.ES,))[Side.ES],
            objective=scenario.twin.objective,
            violation=scenario.twin.violation,
        ),
        models=bundle,
        namer=bundle if site.scenery.named else None,
    )
