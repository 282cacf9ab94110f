"""How far the link is from theory: bit errors, outage, and where the outer loop settles.

python benchmarks/link.py [--out benchmarks/link.json]
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from megdt.link.channels import BlockFading, awgn
from megdt.link.grid import Grid
from megdt.link.qam import levels, map_bits, theoretical_ber
from megdt.link.transport import Transport
from megdt.records import Packet

# Bits a symbol, and SNRs at which there are errors enough to count.
CONSTELLATIONS = {2: (0, 4, 7), 4: (6, 10, 14), 6: (12, 16, 20), 8: (18, 22, 26)}
ERRORS = 40_000
CHANNELS = {
    "AWGN, 8 dB": BlockFading(snr_db=8, k_factor=math.inf),
    "fast Rayleigh, 15 dB": BlockFading(snr_db=15, coherence_time_s=1e-3),
    "slow Rician, 12 dB": BlockFading(snr_db=12, k_factor=4.0, coherence_time_s=20e-3),
}


def bit_errors(order: int, snr_db: float) -> float:
    """Share of bits that hard decisions get wrong."""
    rng = np.random.default_rng((order, snr_db))
    count = int(min(ERRORS / theoretical_ber(order, snr_db) / order, 2e6))
    bits = rng.integers(0, 2, order * count, np.uint8)
    received = awgn(map_bits(bits, order), 10 ** (-snr_db / 10), rng)
    axis = levels(order)
    rising = np.argsort(axis)
    edges = (axis[rising][1:] + axis[rising][:-1]) / 2
    decided = np.empty((count, order), np.uint8)
    for part, values in enumerate((received.real, received.imag)):
        nearest = rising[np.searchsorted(edges, values)]
        for bit in range(order // 2):
            decided[:, 2 * bit + part] = (nearest >> (order // 2 - 1 - bit)) & 1
    return float(np.mean(decided.ravel() != bits))


def outage(threshold_db: float) -> tuple[float, float]:
    """Measured and expected share of Rayleigh gains at 5 dB that are below a threshold."""
    fading = BlockFading(snr_db=5, coherence_time_s=1e-3).begin(Grid(), np.random.default_rng(0))
    gains = np.array([fading.slot(i, 1)[0][0, 0] for i in range(200_000)])
    measured = float(np.mean(5 + 20 * np.log10(np.abs(gains)) < threshold_db))
    return measured, 1 - math.exp(-(10 ** ((threshold_db - 5) / 10)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    found: dict[str, Any] = {
        "bit_errors_off_theory": {},
        "outage_off_formula": {},
        "outer_loop": {},
    }
    for order, snrs in CONSTELLATIONS.items():
        for snr_db in snrs:
            off = bit_errors(order, snr_db) / theoretical_ber(order, snr_db) - 1
            found["bit_errors_off_theory"][f"{2**order}-QAM, {snr_db} dB"] = round(off, 4)
    for threshold_db in (-5.0, 0.0, 5.0):
        measured, expected = outage(threshold_db)
        found["outage_off_formula"][f"{threshold_db:g} dB"] = round(measured / expected - 1, 4)
    for name, channel in CHANNELS.items():
        # A tenth of the slots are retransmissions, so this ends after some 2,000 blocks.
        link = Transport(channel=channel, deadline_s=2.25)
        payload = np.random.default_rng(9).bytes(2_000_000)
        delivery = link.send(Packet(payload=payload), np.random.default_rng(0))
        found["outer_loop"][name] = {
            "blocks": delivery.blocks,
            "failed_first": round(delivery.failed_first / delivery.blocks, 4),
        }
    print(json.dumps(found, indent=1))
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
