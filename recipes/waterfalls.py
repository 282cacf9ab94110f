"""Measure the block error curves of the modem: every MCS at several code block sizes.

Link adaptation and the abstract link read them. Each curve is a Gaussian distribution function of
the SNR in dB; two numbers, fitted to blocks that were sent bit by bit over AWGN.

python recipes/waterfalls.py [--quick] [--out src/megdt/link/waterfalls.json]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from megdt.link.adaptation import MCS_TABLES, Mcs, transport_block_bits
from megdt.link.channels import awgn
from megdt.link.grid import Grid
from megdt.link.modem import SoftBuffer, encode, layout, modulate
from megdt.link.qam import effective_snr_db

OUT = Path(__file__).parent.parent / "src" / "megdt" / "link" / "waterfalls.json"
PAYLOADS = (120, 504, 1480, 3752, 8400)
"""Of one code block, besides what a single resource block holds; the largest exist in base graph 1
alone."""


def block_errors(mcs: Mcs, payload_bits: int, snr_db: float, blocks: int, seed: int) -> int:
    """How many of so many blocks are not decoded."""
    rng = np.random.default_rng((seed, payload_bits, round(1000 * snr_db) + 100_000))
    plan = layout(payload_bits, mcs.code_rate)
    order, noise_power = mcs.bits_per_symbol, 10 ** (-snr_db / 10)
    symbols = int(np.ceil(payload_bits / mcs.efficiency))
    failed = 0
    for _ in range(blocks):
        payload = rng.integers(0, 2, payload_bits, np.uint8)
        sent = modulate(
            encode(payload, plan),
            plan,
            redundancy_version=0,
            symbols=symbols,
            bits_per_symbol=order,
        )
        buffer = SoftBuffer(plan)
        received = awgn(sent, noise_power, rng)
        buffer.combine(received, noise_power, redundancy_version=0, bits_per_symbol=order)
        decoded = buffer.decode()
        failed += decoded is None or bool((decoded != payload).any())
    return failed


def measure(mcs: Mcs, payload_bits: int, blocks: int) -> tuple[int, float, float]:
    """Code block size, SNR at 50 % errors, and the standard deviation in dB."""
    guess = effective_snr_db(mcs.efficiency, mcs.bits_per_symbol) + 0.3
    step = 0.15 if payload_bits > 3000 else 0.25 if payload_bits > 1000 else 0.5
    found: dict[int, int] = {}

    def rate(index: int) -> float:
        if index not in found:
            found[index] = block_errors(mcs, payload_bits, guess + index * step, blocks, 0)
        return found[index] / blocks

    index = 0
    while rate(index) < 0.95:
        index -= 1
    index = 0
    while rate(index) > 0.02:
        index += 1
    middle, deviation = fit({guess + i * step: e / blocks for i, e in found.items()}, blocks)
    return layout(payload_bits, mcs.code_rate).block_bits, middle, deviation


def fit(rates: dict[float, float], blocks: int) -> tuple[float, float]:
    """Probit regression: middle and deviation of the curve, weighted by what each point tells."""
    normal = NormalDist()
    snr_db = np.array(list(rates))
    # Half a block keeps 0 and 1 finite.
    rate = np.clip(np.array(list(rates.values())), 0.5 / blocks, 1 - 0.5 / blocks)
    score = np.array([normal.inv_cdf(1 - r) for r in rate])
    density = np.array([normal.pdf(s) for s in score])
    weight = density**2 / (rate * (1 - rate))
    slope, start = np.polyfit(snr_db, score, 1, w=np.sqrt(weight))
    return float(-start / slope), float(1 / slope)


def schemes() -> Iterator[Mcs]:
    """Every modulation and rate of the MCS tables, once."""
    seen = {(m.bits_per_symbol, m.rate_1024) for table in MCS_TABLES.values() for m in table}
    for order, rate in sorted(seen):
        yield Mcs(bits_per_symbol=order, rate_1024=rate)


def sizes(mcs: Mcs) -> list[int]:
    """Payloads from one resource block on, in one code block."""
    least = transport_block_bits(Grid().block_data_elements, mcs)
    larger = [p for p in PAYLOADS if p > least and layout(p, mcs.code_rate).blocks == 1]
    return [least, *larger]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few blocks, for a test")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    curves: list[dict[str, Any]] = []
    for mcs in schemes():
        if arguments.quick and mcs.rate_1024 != 602:
            continue
        points = []
        for payload_bits in sizes(mcs):
            blocks = 20 if arguments.quick else 300 if payload_bits < 3000 else 120
            size, middle, deviation = measure(mcs, payload_bits, blocks)
            points.append([size, round(middle, 3), round(deviation, 3)])
        curves.append(
            {"bits_per_symbol": mcs.bits_per_symbol, "rate_1024": mcs.rate_1024, "points": points}
        )
        print(mcs, points, flush=True)
    text = json.dumps({"points": "code block bits, SNR dB at 50 %, deviation dB", "curves": curves})
    arguments.out.write_text(text.replace('{"bits', '\n{"bits') + "\n")
    print(f"curves: {arguments.out}")


if __name__ == "__main__":
    main()
