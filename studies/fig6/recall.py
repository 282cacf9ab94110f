"""What a picture at low SNR still shows of its scene: species, colour and sky, by the probe classifier.

python studies/fig6/recall.py [--views 48] [--out recall.json]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from megdt.models.bundle import Bundle
from megdt.records import Feature, Part
from megdt.scenario import parse_scenario
from megdt.worlds.garden import draw_view

HERE = Path(__file__).parent
HELD_OUT = 10_000_000
SNR_DB = (-20, -15, -10, -5, 0, 5)
SCHEMES: dict[str, tuple[str, float]] = {
    "split, analog": ("analog", 1.0),
    "hybrid": ("hybrid", 1.0),
    "hybrid, half the uses": ("hybrid", 0.5),
}


def measure(views: int) -> dict[str, Any]:
    """Share of pictures of which the classifier says the same as of the view itself."""
    bundle = Bundle()
    scenes = [draw_view(HELD_OUT + number) for number in range(views)]
    pictures = np.stack([garden.render(view) for garden, view in scenes])
    wanted = bundle.classify(pictures)
    found: dict[str, Any] = {}
    for name, (codec, rate) in SCHEMES.items():
        for snr_db in SNR_DB:
            came = []
            for number, picture in enumerate(pictures):
                scenario = parse_scenario(
                    {
                        "request": {"prompt": "view", "rng_seed": number},
                        "plan": {"mechanism": "ue_to_es", "symbol_rate": rate},
                        "codecs": {"seed": codec},
                        "link": {"snr_db": float(snr_db)},
                    }
                )
                sensed = Part(features={"sense": Feature(kind="image", values=picture)})
                image = scenario.run(bundle, done=sensed).image
                came.append(np.full_like(picture, 128) if image is None else image)
            said = bundle.classify(np.stack(came))
            found[f"{name}, {snr_db} dB"] = {
                kind: round(float((said[kind] == wanted[kind]).mean()), 3) for kind in wanted
            }
            print(name, snr_db, found[f"{name}, {snr_db} dB"], flush=True)
    return {"views": views, "bundle_sha256": bundle.checksum, "recall": found}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--views", type=int, default=48)
    parser.add_argument("--out", type=Path, default=HERE / "recall.json")
    arguments = parser.parse_args()
    arguments.out.write_text(json.dumps(measure(arguments.views), indent=1) + "\n")


if __name__ == "__main__":
    main()
