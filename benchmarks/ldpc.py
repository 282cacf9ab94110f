"""The LDPC decoder against Sionna's on the same noisy blocks, and the time of a seed over the air.

    pip install sionna-no-rt
    python benchmarks/ldpc.py [--quick] [--out benchmarks/ldpc.json]

QPSK over AWGN, one core. Sionna decodes in the batch that is fastest for it, with its default
(boxplus-phi) and with offset min-sum, in 20 iterations; ours in at most 20 as well, and in as many
as links use. All get the very same log-likelihood ratios, drawn once a code and scaled to each
SNR, so that little chance is left in the distance of their waterfalls. What is set against Sionna
is ours in 20.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial, wraps
from importlib.metadata import version
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist
from typing import Any

# Threads that spin while they wait would take the core from whoever is measured.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from megdt.link import transport
from megdt.link.adaptation import MCS_TABLES, Mcs
from megdt.link.channels import awgn
from megdt.link.ldpc import MAX_ITERATIONS, LdpcCode
from megdt.link.modem import SoftBuffer, encode, layout, modulate
from megdt.link.radio import RadioLink
from megdt.records import Packet

CODES = [
    # base graph, information bits, sent bits, an SNR in dB near a block error rate of 0.1
    (1, 8448, 16896, 0.9),
    (1, 8448, 9504, 6.0),
    (1, 3840, 11520, -1.25),
    (2, 3840, 11520, -1.25),
    (2, 640, 3200, -3.6),
]
Decode = Callable[[np.ndarray], np.ndarray]

TARGET = 0.1
ITERATIONS = 20
OURS, DEFAULT = f"megdt, {ITERATIONS} iterations", f"megdt, {MAX_ITERATIONS} iterations"
BATCHES = (2, 5, 10)
SEED_BYTES = 4 * 128 * 128 * 4
"""The latent of a picture of 1024 x 1024 in float32: 2,097,152 bits."""


class Blocks:
    """Code words of one code, and the noise that they meet."""

    def __init__(self, base_graph: Any, k: int, n: int, count: int) -> None:
        from sionna.phy.fec.ldpc import LDPC5GEncoder

        self.k = k
        self.encoder = LDPC5GEncoder(k, n, bg=f"bg{base_graph}")
        self.code = LdpcCode(base_graph=base_graph, lifting_size=self.encoder.z)
        rng = np.random.default_rng((base_graph, k, n))
        self.bits = rng.integers(0, 2, (count, k), np.uint8)
        padding = self.code.information_bits - k
        words = self.code.encode(np.pad(self.bits, ((0, 0), (0, padding))))
        # The first 2 Z bits and filler bits are not sent.
        kept = np.r_[2 * self.encoder.z : k, self.code.information_bits : self.code.codeword_bits]
        self.places = kept[:n]
        self.signs = 1 - 2 * words[:, self.places].astype(np.float32)
        self.noise = rng.standard_normal(self.signs.shape, np.float32)

    def llrs(self, snr_db: float, count: int) -> np.ndarray:
        """Ratios log P(0) / P(1) of the bits that were sent."""
        power = 10 ** (-snr_db / 10)
        signs, noise = self.signs[:count], self.noise[:count]
        return np.float32(2 / power) * (signs + np.float32(power**0.5) * noise)

    def ours(self, llrs: np.ndarray, max_iterations: int = ITERATIONS) -> np.ndarray:
        whole = np.zeros((llrs.shape[0], self.code.codeword_bits), np.float32)
        whole[:, self.k : self.code.information_bits] = 1e4
        whole[:, self.places] = llrs
        return self.code.decode(whole, max_iterations=max_iterations).bits[:, : self.k]

    def theirs(self, update: str, batch: int) -> Decode:
        from sionna.phy.fec.ldpc import LDPC5GDecoder

        decoder = LDPC5GDecoder(self.encoder, cn_update=update, num_iter=ITERATIONS, hard_out=True)

        def decode(llrs: np.ndarray) -> np.ndarray:
            # Sionna's ratios are log P(1) / P(0).
            parts = [-llrs[i : i + batch] for i in range(0, len(llrs), batch)]
            return np.concatenate([decoder(torch.from_numpy(p)).numpy() for p in parts])

        return decode

    def run(self, decode: Decode, snr_db: float, count: int) -> tuple[float, float]:
        """Block error rate and seconds a block."""
        llrs = self.llrs(snr_db, count)
        started = time.perf_counter()
        found = decode(llrs)
        seconds = (time.perf_counter() - started) / count
        return float((found != self.bits[:count]).any(1).mean()), seconds


def crossing(rates: dict[float, float]) -> float:
    """SNR at which the error rate falls through the target, on straight lines in the logarithm."""
    points = sorted(rates.items())
    for (low, before), (high, after) in pairwise(points):
        if before >= TARGET > after:
            first, last = np.log10(before), np.log10(max(after, 1e-3))
            return float(low + (high - low) * (first - np.log10(TARGET)) / (first - last))
    return float("nan")


def waterfall(
    blocks: Blocks,
    decode: Decode,
    *,
    guess: float,
    step: float,
    count: int,
) -> tuple[float, dict[float, float]]:
    """Walk along a grid until the target is passed on both sides."""
    rates: dict[float, float] = {}

    def rate(index: int) -> float:
        snr_db = round(guess + index * step, 3)
        if snr_db not in rates:
            rates[snr_db], _ = blocks.run(decode, snr_db, count)
        return rates[snr_db]

    index = 0
    while rate(index) < TARGET:
        index -= 1
    while rate(index) >= TARGET:
        index += 1
    return crossing(rates), dict(sorted(rates.items()))


def compare(base_graph: int, k: int, n: int, guess: float, *, quick: bool) -> dict[str, Any]:
    """One code: speed at and above the waterfall, and the distance in dB."""
    few, many = (20, 60) if quick else (100, 400)
    timed = 4 if quick else 10
    step = 0.05 if k > 3000 else 0.1
    blocks = Blocks(base_graph, k, n, many)
    default = partial(blocks.ours, max_iterations=MAX_ITERATIONS)
    crossed, rates = waterfall(blocks, blocks.ours, guess=guess, step=step, count=many)
    longer, longer_rates = waterfall(blocks, default, guess=guess, step=step, count=many)
    row: dict[str, Any] = {
        "base_graph": base_graph,
        "information_bits": k,
        "sent_bits": n,
        "lifting_size": blocks.encoder.z,
        "snr_db_at_bler_0.1": {OURS: round(crossed, 3), DEFAULT: round(longer, 3)},
        "bler": {OURS: rates, DEFAULT: longer_rates},
    }
    decoders: dict[str, Decode] = {OURS: blocks.ours, DEFAULT: default}
    for name in ("boxplus-phi", "offset-minsum"):
        tried = {}
        for batch in BATCHES[:1] if quick else BATCHES:
            decode = blocks.theirs(name, batch)
            blocks.run(decode, crossed, batch)  # warms up
            tried[batch] = blocks.run(decode, crossed, batch)[1]
        best = min(tried, key=tried.__getitem__)
        decoders[f"sionna {name}"] = blocks.theirs(name, best)
        row[f"sionna {name} batch"] = best
    if not quick:
        theirs = decoders["sionna boxplus-phi"]
        nearest = min(rates, key=lambda snr_db: abs(snr_db - crossed))
        found = waterfall(blocks, theirs, guess=nearest, step=step, count=few)
        # Ours once more on the blocks that Sionna had: the distance is that on common noise.
        common, _ = waterfall(blocks, blocks.ours, guess=nearest, step=step, count=few)
        row["snr_db_at_bler_0.1"]["sionna boxplus-phi"] = round(found[0], 3)
        row["bler"]["sionna boxplus-phi"] = found[1]
        row["gain_db_over_sionna_on_the_same_blocks"] = round(found[0] - common, 3)
    row["mbit_s"] = {}
    row["times_faster_than"] = {}
    for label, snr_db in (("bler 0.1", crossed), ("1 dB above", crossed + 1)):
        seconds: dict[str, list[float]] = {name: [] for name in decoders}
        for _ in range(1 if quick else 3):  # in turns, so that a slow moment slows all
            for name, decode in decoders.items():
                count = many if name in (OURS, DEFAULT) else timed
                seconds[name].append(blocks.run(decode, snr_db, count)[1])
        speed = {name: k / float(np.median(s)) / 1e6 for name, s in seconds.items()}
        row["mbit_s"][label] = {name: round(s, 3) for name, s in speed.items()}
        row["times_faster_than"][label] = {
            name: round(speed[OURS] / s, 1) for name, s in speed.items() if "sionna" in name
        }
    return row


def published(*, quick: bool) -> list[dict[str, Any]]:
    """Points of published block error curves: tables of Sionna's PHY abstraction for the PDSCH.

    Their grid has steps of 1.6 to 1.8 dB, so that few of its points lie in a waterfall; these do.
    Sionna's blocks carry no CRC; ours carry one within the same size, in as many symbols,
    and are decoded as links do.
    """
    rows = []
    for table, index, size in ((1, 6, 2000), (2, 2, 1000), (1, 13, 2000), (2, 14, 2000)):
        path = files("sionna.sys") / "bler_tables" / f"PDSCH_table{table}.json"
        curve = json.loads(path.read_text())["category"]["1"]["index"][str(table)]["MCS"]
        errors = curve[str(index)]["CBS"][str(size)]["BLER"]
        place = int(np.argmin(np.abs(np.array(errors) - 0.4)))
        snr_db, theirs = curve[str(index)]["SNR_db"][place], errors[place]
        count = 100 if quick else 600
        mcs = MCS_TABLES[table][index]
        near = {s: _bler(mcs, size, snr_db + s, count) for s in (-0.3, -0.2, -0.1, 0.0, 0.1)}
        # Straight lines on the scale on which a waterfall is one.
        normal = NormalDist()
        scores = [
            normal.inv_cdf(1 - min(max(e, 0.5 / count), 1 - 0.5 / count)) for e in near.values()
        ]
        needed = np.interp(normal.inv_cdf(1 - theirs), scores, list(near))
        rows.append(
            {
                "pdsch_table": table,
                "mcs": index,
                "code_block_bits": size,
                "snr_db": round(snr_db, 3),
                "bler_published": round(theirs, 4),
                "bler_megdt": near[0.0],
                "gain_db_over_published": round(-float(needed), 3),
            }
        )
    return rows


def _bler(mcs: Mcs, size: int, snr_db: float, count: int) -> float:
    payload_bits = size - 16
    rng = np.random.default_rng(payload_bits)
    plan = layout(payload_bits, mcs.code_rate)
    order, noise = mcs.bits_per_symbol, 10 ** (-snr_db / 10)
    symbols = int(np.ceil(size / mcs.efficiency))
    failed = 0
    for _ in range(count):
        payload = rng.integers(0, 2, payload_bits, np.uint8)
        sent = modulate(
            encode(payload, plan),
            plan,
            redundancy_version=0,
            symbols=symbols,
            bits_per_symbol=order,
        )
        buffer = SoftBuffer(plan)
        buffer.combine(awgn(sent, noise, rng), noise, redundancy_version=0, bits_per_symbol=order)
        failed += buffer.decode() is None
    return failed / count


def ue_to_es(snr_db: float) -> dict[str, Any]:
    """2.1 Mbit over a radio link: seconds in all (the median of three), and where they go."""
    link = RadioLink(channel="awgn", snr_db=snr_db, bandwidth_hz=20e6, coding="ldpc")
    payload = np.random.default_rng(0).bytes(SEED_BYTES)
    link.send(Packet(payload=payload[:20_000]), np.random.default_rng(0))  # compiles
    runs = []
    for _ in range(3):
        started = time.perf_counter()
        delivery = link.send(Packet(payload=payload), np.random.default_rng(0))
        runs.append(time.perf_counter() - started)
    seconds = float(np.median(runs))
    if delivery.payload != payload:
        raise SystemExit(f"the seed did not arrive at {snr_db} dB: {delivery.outcome}")
    # Once more with a clock around each part; it costs little, but the total is measured without.
    parts: dict[str, float] = defaultdict(float)

    def clocked(owner: Any, attribute: str, name: str) -> Callable[[], None]:
        original = getattr(owner, attribute)

        @wraps(original)
        def timed(*values: Any, **named: Any) -> Any:
            begun = time.perf_counter()
            result = original(*values, **named)
            parts[name] += time.perf_counter() - begun
            return result

        setattr(owner, attribute, timed)
        return lambda: setattr(owner, attribute, original)

    undo = [
        clocked(transport, "encode", "encode"),
        clocked(transport, "modulate", "modulate"),
        clocked(transport, "awgn", "channel"),
        clocked(transport, "fill_slot", "channel"),
        clocked(transport, "estimate", "estimate"),
        clocked(transport, "equalise", "estimate"),
        clocked(SoftBuffer, "combine", "demap and combine"),
        clocked(SoftBuffer, "decode", "decode"),
    ]
    begun = time.perf_counter()
    link.send(Packet(payload=payload), np.random.default_rng(0))
    parts["everything else"] = time.perf_counter() - begun - sum(parts.values())
    for restore in undo:
        restore()
    return {
        "snr_db": snr_db,
        "bits": 8 * SEED_BYTES,
        "seconds": round(seconds, 3),
        "mbit_s": round(8 * SEED_BYTES / seconds / 1e6, 2),
        "blocks": delivery.blocks,
        "failed_first": delivery.failed_first,
        "airtime_s": round(delivery.airtime_s, 3),
        "seconds_by_part": {name: round(s, 3) for name, s in parts.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few blocks, for a test")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seeds = []
    for snr_db in (10.0, 20.0):
        seeds.append(ue_to_es(snr_db))
        print(json.dumps(seeds[-1]), flush=True)
    codes = []
    for base_graph, k, n, guess in CODES:
        codes.append(compare(base_graph, k, n, guess, quick=arguments.quick))
        print(json.dumps(codes[-1]), flush=True)
    curves = published(quick=arguments.quick)
    print(json.dumps(curves))
    machine = (
        f"{platform.machine()}, one core, torch {torch.__version__}, sionna-no-rt "
        f"{version('sionna-no-rt')}, numba {version('numba')}"
    )
    found = {"machine": machine, "codes": codes, "published_curves": curves, "seed": seeds}
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
