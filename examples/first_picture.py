"""Generate one picture over a noisy link, and see what it cost.

python examples/first_picture.py
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from megdt.models.bundle import Bundle
from megdt.scenario import parse_scenario


def main() -> None:
    scenario = parse_scenario(
        {
            "request": {"prompt": "several white lilies under the stars", "rng_seed": 7},
            "codecs": {"seed": "analog"},
            "link": {"snr_db": 15},
        }
    )
    result = scenario.run(Bundle())
    path = Path("white-lilies.png")
    Image.fromarray(result.image).save(path)
    print(f"{path}: {result.ledger.channel_uses} channel uses, {result.ledger.energy_j:.2f} J")


if __name__ == "__main__":
    main()
