"""The twin's predictions of place, SNR and content: how near they are, and whether intervals hold.

python studies/twin_prediction/run.py [--quick] [--out results.json]
"""

from __future__ import annotations

import argparse
import json
import platform
import tomllib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt import __version__
from megdt.models.quality import perceptual_distance
from megdt.twin.calibration import measure_coverage
from megdt.twin.content import MATTERS, predict_change
from megdt.twin.mobility import Motion, Tracker, street_motion
from megdt.twin.prediction import SnrPredictor
from megdt.twin.radio_map import RadioMap, distance_law
from megdt.worlds.garden import draw_view
from megdt.worlds.radio_field import RadioField, expected_loss_db, path_loss_db
from megdt.worlds.scene import SKIES
from megdt.worlds.tracks import walk_streets

HERE = Path(__file__).parent
STEP_S = 0.1
STATION_M = (0.0, 0.0)
GAUSSIAN = 1.645  # deviations on either side of nine in ten
JITTERS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)

Floats = NDArray[np.float64]


def rms(error: Any) -> float:
    return float(np.sqrt(np.mean(np.square(error))))


def predict_world(
    name: str, speed_m_s: float, settings: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """One world at one speed: a row for each horizon, and one for the map."""
    field = RadioField(stations_m=(STATION_M,), **settings["worlds"][name])
    rng = np.random.default_rng((field.rng_seed, round(10 * speed_m_s)))
    ues, warm_up = settings["ues"], settings["warm_up_s"]
    tracks = walk_streets(
        field.rng_seed, ues=ues, duration_s=settings["duration_s"], speed_m_s=speed_m_s,
        blocks=settings["blocks"],
    )  # fmt: skip
    true = np.stack([field.snr_db(at, n * STEP_S)[:, 0] for n, at in enumerate(tracks)])
    measured = true + settings["snr_noise_db"] * rng.standard_normal(true.shape)
    measured = np.clip(measured, -40, 60)  # what a receiver tells
    tracker = Tracker(ues, street_motion(speed_m_s))
    radio_map = RadioMap(distance_law(STATION_M), noise_db=settings["snr_noise_db"])
    predictor = SnrPredictor(
        tracker, radio_map, level=settings["level"], horizons_s=tuple(settings["horizons_s"])
    )
    told = defaultdict(list)
    everyone = np.arange(ues)
    every = round(settings["told_every_s"] / STEP_S)
    for n, at in enumerate(tracks):
        now = n * STEP_S
        noisy = at + settings["position_noise_m"] * rng.standard_normal(at.shape)
        tracker.observe(everyone, now, noisy, now_s=now, noise_m=settings["position_noise_m"])
        predictor.observe(everyone, now, measured[n], now_s=now)
        if n % every:
            continue
        for horizon in settings["horizons_s"]:
            then = n + round(horizon / STEP_S)
            if then >= len(tracks):
                continue
            forecast = predictor.predict(now, horizon)
            if now < warm_up:
                continue
            place = tracker.predict(now + horizon).mean_m
            law = radio_map.offset_db + radio_map.slope * radio_map.law(place)
            told[horizon].append(
                np.stack(
                    [
                        forecast.mean_db, forecast.deviation_db, forecast.low_db, forecast.high_db,
                        measured[then], true[then], measured[n], law,
                    ]
                )
            )  # fmt: skip
    rows = []
    for horizon, parts in told.items():
        mean, deviation, low, high, then, truth, last, law = np.stack(parts, 1)
        covered = measure_coverage(low, high, then)
        plain = measure_coverage(mean - GAUSSIAN * deviation, mean + GAUSSIAN * deviation, then)
        rows.append(
            {
                "world": name, "speed_m_s": speed_m_s, "horizon_s": horizon,
                "coverage": covered.share, "forecasts": covered.count, "width_db": covered.width,
                "coverage_of_the_mean_snr": measure_coverage(low, high, truth).share,
                "coverage_without_calibration": plain.share,
                "error_db": rms(mean - truth), "last_measured_error_db": rms(last - truth),
                "distance_law_error_db": rms(law - truth),
            }
        )  # fmt: skip
    return rows, judge_map(name, speed_m_s, field, radio_map, settings)


def judge_map(
    name: str, speed_m_s: float, field: RadioField, radio_map: RadioMap, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The map at places where other UEs are, when the last measurement was made."""
    at = walk_streets(
        field.rng_seed + 1000, ues=settings["held_out_places"], duration_s=5.0,
        speed_m_s=speed_m_s, blocks=settings["blocks"],
    )[-1]  # fmt: skip
    time_s = settings["duration_s"]
    truth = field.snr_db(at, time_s)[:, 0]
    mean, variance = radio_map.predict(at, time_s=time_s)
    ground = np.linalg.norm(at - STATION_M, axis=1)
    loss = (
        expected_loss_db(ground, 3.5e9)
        if field.sight == "mixed"
        else path_loss_db(ground, 3.5e9, line_of_sight=False)
    )
    formula = field.budget_db - loss
    law = radio_map.offset_db + radio_map.slope * radio_map.law(at)
    return {
        "world": name, "speed_m_s": speed_m_s, "bins": len(radio_map),
        "error_db": rms(mean - truth), "fitted_distance_law_error_db": rms(law - truth),
        "formula_error_db": rms(formula - truth),
        "told_deviation_db": float(np.sqrt(np.mean(variance))),
        "correlation_m": radio_map.correlation_m, "shadowing_db": radio_map.shadowing_db,
    }  # fmt: skip


def follow(
    tracks: Floats, motion: Motion, settings: Mapping[str, Any], rng_seed: int
) -> dict[float, tuple[float, float]]:
    """Error of the place, and coverage of the region that shall hold nine in ten, by horizon."""
    rng = np.random.default_rng(rng_seed)
    tracker = Tracker(tracks.shape[1], motion)
    off, inside = defaultdict(list), defaultdict(list)
    for n, at in enumerate(tracks):
        now = n * STEP_S
        noisy = at + settings["position_noise_m"] * rng.standard_normal(at.shape)
        tracker.observe(
            np.arange(len(at)), now, noisy, now_s=now, noise_m=settings["position_noise_m"]
        )
        if n % 10 or now < settings["warm_up_s"] / 4:
            continue
        for horizon in settings["horizons_s"]:
            then = n + round(horizon / STEP_S)
            if then < len(tracks):
                forecast = tracker.predict(now + horizon)
                off[horizon].append(np.linalg.norm(forecast.mean_m - tracks[then], axis=1))
                inside[horizon].append(forecast.distance(tracks[then]) < 4.605**0.5)
    return {h: (rms(off[h]), float(np.mean(inside[h]))) for h in off}


def measure_mobility(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Against constant velocity with the jitter that is best on other tracks."""
    rows = []
    for speed in settings["speeds_m_s"]:
        training, tracks = (
            walk_streets(
                seed, ues=settings["ues"], duration_s=settings["duration_s"] / 2, speed_m_s=speed,
                blocks=settings["blocks"],
            )
            for seed in (41, 42)
        )  # fmt: skip

        def straight(jitter: float, speed: float = speed) -> Motion:
            return Motion(
                speed_m_s=speed, jitter=jitter, stays_s=(("straight", 1.0),), enters=(1.0,)
            )

        trained = {j: follow(training, straight(j), settings, 1) for j in JITTERS}
        ours = follow(tracks, street_motion(speed), settings, 2)
        for horizon, (error, covered) in ours.items():
            best = min(JITTERS, key=lambda j, h=horizon: trained[j][h][0])  # type: ignore[misc]
            other = follow(tracks, straight(best), settings, 2)[horizon]
            rows.append(
                {
                    "speed_m_s": speed, "horizon_s": horizon, "error_m": error,
                    "constant_velocity_error_m": other[0], "its_jitter": best,
                    "coverage_of_the_filter": covered,
                }
            )  # fmt: skip
    return rows


def measure_content(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The kept curve against views that it has not seen."""
    found = defaultdict(list)
    for number in range(settings["scenes"]):
        seed = settings["first_scene"] + number
        garden, view = draw_view(seed)
        rng = np.random.default_rng((seed, 7))
        keys, later = [], []
        for age in settings["ages_days"]:
            others = [sky for sky in SKIES if sky != garden.conditions.sky]
            other = replace(garden.conditions, sky=str(rng.choice(others)))
            for sky, then in (("same", garden.conditions), ("other", other)):
                keys.append((age, sky))
                later.append(garden.later(age, then).render(view))
        seen = np.broadcast_to(garden.render(view), (len(later), *later[0].shape))
        for key, distance in zip(keys, perceptual_distance(np.stack(later), seen), strict=True):
            found[key].append(float(distance))
        print(f"{number + 1}/{settings['scenes']} scenes", flush=True)
    rows = []
    for (age, sky), distances in found.items():
        told = predict_change(age, other_sky=float(sky == "other"))
        rows.append(
            {
                "age_days": age, "sky": sky, "told_mean": told.mean, "mean": float(np.mean(distances)),
                "told_low": told.low, "told_high": told.high,
                "coverage": measure_coverage(
                    np.full(len(distances), told.low), np.full(len(distances), told.high), distances
                ).share,
                "told_matters": told.matters, "matters": float(np.mean(np.array(distances) > MATTERS)),
                "scenes": len(distances),
            }
        )  # fmt: skip
    return rows


def span(values: Any, digits: int = 3) -> str:
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"


def list_claims(results: Mapping[str, Any]) -> list[dict[str, str]]:
    snr, maps, moves, content = (results[k] for k in ("snr", "maps", "mobility", "content"))
    covered = [r["coverage"] for r in snr]
    held = [r for r in snr if abs(r["coverage"] - 0.9) <= 0.03]
    plain = [r["coverage_without_calibration"] for r in snr]
    law = {
        (r["world"], r["speed_m_s"]): r["error_db"] / r["fitted_distance_law_error_db"]
        for r in maps
    }
    last = {
        (r["world"], r["speed_m_s"], r["horizon_s"]): r["error_db"] / r["last_measured_error_db"]
        for r in snr
    }
    from_1_s = [v for (_, _, h), v in last.items() if h >= 1]
    velocity = [r["error_m"] / r["constant_velocity_error_m"] for r in moves]
    inside = np.average([r["coverage"] for r in content], weights=[r["scenes"] for r in content])
    return [
        {
            "claim": "Intervals of predicted SNR cover 90 % +- 3 points, in every world, at every speed and horizon",
            "verdict": "met" if len(held) == len(snr) else "missed",
            "found": f"{span(covered)}; {len(held)} of {len(snr)} within",
        },
        {
            "claim": "Without calibration they would too",
            "verdict": "holds" if all(abs(p - 0.9) <= 0.03 for p in plain) else "does not hold",
            "found": f"{span(plain)}; {sum(abs(p - 0.9) <= 0.03 for p in plain)} of {len(snr)} within",
        },
        {
            "claim": "The learned map is nearer than the distance law fitted to the same measurements",
            "verdict": "holds" if max(law.values()) < 1 else "does not hold",
            "found": f"{span(law.values(), 2)} of its error",
        },
        {
            "claim": "Predicted SNR is nearer than the last measured, at every horizon",
            "verdict": "holds" if max(last.values()) < 1 else "does not hold",
            "found": f"{span(last.values(), 2)} of its error; from 1 s on {span(from_1_s, 2)}",
        },
        {
            "claim": "Mixed filters are nearer than constant velocity with its best jitter",
            "verdict": "holds" if max(velocity) < 1 else "does not hold",
            "found": f"{span(velocity, 2)} of its error, {sum(v < 1 for v in velocity)} of {len(velocity)} below 1",
        },
        {
            "claim": "Nine in ten tiles of unseen gardens have changed by what the curve says, +- 3 points",
            "verdict": "met" if abs(inside - 0.9) <= 0.03 else "missed",
            "found": f"{inside:.3f} over all ages and skies",
        },
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small numbers, for a test")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    arguments = parser.parse_args()
    settings = tomllib.loads((HERE / "study.toml").read_text())
    quick = settings.pop("quick")
    settings |= quick if arguments.quick else {}
    cases = [(name, speed) for name in settings["worlds"] for speed in settings["speeds_m_s"]]
    snr, maps = [], []
    for number, (name, speed) in enumerate(cases):
        rows, found = predict_world(name, speed, settings)
        snr += rows
        maps.append(found)
        print(f"{number + 1}/{len(cases)} worlds", flush=True)
    results: dict[str, Any] = {
        "settings": settings,
        "machine": f"{platform.machine()}, numpy {np.__version__}, megdt {__version__}",
        "snr": snr,
        "maps": maps,
        "mobility": measure_mobility(settings),
        "content": measure_content(settings),
    }
    results["claims"] = list_claims(results)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"results: {arguments.out}")


if __name__ == "__main__":
    main()
