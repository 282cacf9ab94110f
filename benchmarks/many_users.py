"""Rounds of many UEs, simulated: seconds a hundred rounds, by mechanism and number of UEs.

python benchmarks/many_users.py [--rounds 100] [--out benchmarks/many_users.json]

What networks make is given beforehand or stands in for nothing, so that what is timed is the
executor, the codecs, the link and the clock: int8 observations of 256-pixel views two metres apart,
20 MHz at 20 dB by measured error rates.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt.codecs.observation import NeedsCodec, WideObservationCodec
from megdt.codecs.seed import QuantisedSeedCodec
from megdt.codecs.shares import SharesCodec
from megdt.link.energy import load_profile
from megdt.link.radio import RadioLink
from megdt.mechanisms.multi_user import coordinated, decentralized, individual
from megdt.mechanisms.panorama import Camera, Panorama
from megdt.mechanisms.sharing import choose_shares
from megdt.mechanisms.simulate import simulate
from megdt.mechanisms.stages import Mechanism
from megdt.models import LATENT_CHANNELS
from megdt.records import Feature, Part, Request, Side

UES = (8, 16, 32, 64)
CELLS, APART = 32, 16
"""Of a view, and from one view to the next, in latents."""
OBSERVATION_BITS = 8 * LATENT_CHANNELS * CELLS**2 + 80


class NoNetworks:
    """Passes on what there is."""

    def fuse(self, latents: NDArray[np.float32], *known: NDArray[np.float32]) -> Any:
        """The first source."""
        return latents[:, 0]

    def decode(self, latents: NDArray[np.float32], noise_power: Any = None) -> NDArray[np.uint8]:
        """A black picture."""
        return np.zeros((len(latents), 8, 8, 3), np.uint8)


def build(name: str, panorama: Panorama) -> Mechanism:
    """A mechanism of the panorama's cameras; each shares its view with both neighbours."""
    if name == "individual":
        return individual(panorama)
    if name == "coordinated":
        return coordinated(panorama)
    shares = choose_shares(
        panorama,
        {c.side: np.ones((CELLS, CELLS), np.float32) for c in panorama.cameras},
        {c.side: 0.0 for c in panorama.cameras},
        budget_bits=2 * len(panorama.cameras) * OBSERVATION_BITS,
        cost_bits=lambda columns: 8 * LATENT_CHANNELS * CELLS * columns + 96,
    )
    return decentralized(panorama, shares)


def seed_codec(width: int) -> QuantisedSeedCodec:
    """Of so many columns."""
    return QuantisedSeedCodec(shape=(LATENT_CHANNELS, CELLS, width))


def time_rounds(name: str, ues: int, rounds: int) -> dict[str, Any]:
    """Wall seconds of some rounds of one mechanism."""
    cameras = tuple(Camera(side=Side.ue(n + 1), column=APART * n) for n in range(ues))
    panorama = Panorama(width=APART * (ues - 1) + CELLS, cameras=cameras)
    mechanism = build(name, panorama)
    rng = np.random.default_rng(0)

    def observation(width: int) -> Feature:
        values = rng.standard_normal((LATENT_CHANNELS, CELLS, width)).astype(np.float32)
        return Feature(kind="observation", values=values, age_s=3600.0)

    seen = Feature(kind="image", values=np.zeros((8, 8, 3), np.uint8))
    done = {"remember": observation(panorama.width)}
    for number in range(1, ues + 1):
        done |= {f"sense_{number}": seen, f"observe_{number}": observation(CELLS)}
    link = RadioLink(snr_db=20, coding="abstract", bandwidth_hz=20e6)
    phone = load_profile("phone")
    settings: Mapping[str, Any] = {
        "models": NoNetworks(),
        "codecs": {
            "observation": WideObservationCodec(seed=seed_codec, columns=panorama.width),
            "needs": NeedsCodec(shape=(CELLS, CELLS)),
            "shares": SharesCodec(),
            "seed": seed_codec(panorama.width),
        },
        "links": dict.fromkeys(("observation", "needs", "shares", "seed"), link),
        "devices": {Side.ES: load_profile("edge_gpu"), **{c.side: phone for c in cameras}},
        "done": Part(features=done),
    }
    simulate(mechanism, Request(prompt="round"), **settings)
    started = time.perf_counter()
    for number in range(rounds):
        result = simulate(mechanism, Request(prompt="round", rng_seed=number + 1), **settings)
    seconds = time.perf_counter() - started
    return {
        "mechanism": name,
        "ues": ues,
        "crossings": len(result.ledger.crossings),
        "kbit_a_ue": round(result.ledger.bits / 1000 / ues, 1),
        "round_s": round(result.ledger.duration_s, 3),
        "seconds_of_100": round(100 * seconds / rounds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = []
    for name in ("individual", "decentralized", "coordinated"):
        for ues in UES:
            rows.append(time_rounds(name, ues, arguments.rounds))
            print(rows[-1], flush=True)
    if arguments.out is not None:
        arguments.out.write_text(json.dumps({"wanted_s": 60, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
