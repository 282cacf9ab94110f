"""Link adaptation: which modulation and code rate a transport block is sent with.

The inner loop takes the receiver's last report of the channel (a CQI) and finds the highest MCS
that keeps the target block error rate. The outer loop moves that choice by what was acknowledged:
down by `step_db` at each NACK, up by `step_db * target / (1 - target)` at each ACK, so that the
error rate settles where both balance, whatever is wrong with the report.

Tables: 3GPP TS 38.214, section 5.1.3.1 (MCS) and 5.2.2.1 (CQI); 64-QAM, 256-QAM and low spectral
efficiency. Code rates are times 1024.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt.errors import LinkError
from megdt.link.modem import layout
from megdt.link.qam import effective_snr_db, mutual_information


@dataclass(frozen=True, kw_only=True)
class Mcs:
    """A modulation and coding scheme."""

    bits_per_symbol: int
    rate_1024: float

    @property
    def code_rate(self) -> float:
        """Information bits a coded bit."""
        return self.rate_1024 / 1024

    @property
    def efficiency(self) -> float:
        """Information bits a symbol."""
        return self.bits_per_symbol * self.code_rate


def _table(rows: str) -> tuple[Mcs, ...]:
    """Rows written as "modulation order: rate rate ...; ..."."""
    found = []
    for row in rows.split(";"):
        order, rates = row.split(":")
        found += [Mcs(bits_per_symbol=int(order), rate_1024=float(r)) for r in rates.split()]
    return tuple(found)


MCS_TABLES: dict[int, tuple[Mcs, ...]] = {
    # Table 5.1.3.1-1
    1: _table(
        "2: 120 157 193 251 308 379 449 526 602 679; 4: 340 378 434 490 553 616 658;"
        "6: 438 466 517 567 616 666 719 772 822 873 910 948"
    ),
    # Table 5.1.3.1-2
    2: _table(
        "2: 120 193 308 449 602; 4: 378 434 490 553 616 658; 6: 466 517 567 616 666 719 772 822 873;"
        "8: 682.5 711 754 797 841 885 916.5 948"
    ),
    # Table 5.1.3.1-3
    3: _table(
        "2: 30 40 50 64 78 99 120 157 193 251 308 379 449 526 602; 4: 340 378 434 490 553 616;"
        "6: 438 466 517 567 616 666 719 772"
    ),
}
"""MCS by table number and index, without the reserved ones."""

CQI_TABLES: dict[int, tuple[Mcs, ...]] = {
    # Table 5.2.2.1-2
    1: _table("2: 78 120 193 308 449 602; 4: 378 490 616; 6: 466 567 666 772 873 948"),
    # Table 5.2.2.1-3
    2: _table("2: 78 193 449; 4: 378 490 616; 6: 466 567 666 772 873; 8: 711 797 885 948"),
    # Table 5.2.2.1-4
    3: _table("2: 30 50 78 120 193 308 449 602; 4: 378 490 616; 6: 466 567 666 772"),
}
"""CQI 1 to 15 by table number; CQI 0 is out of range. Table n goes with MCS table n."""

_SIZES = np.fromstring(
    """
    24 32 40 48 56 64 72 80 88 96 104 112 120 128 136 144 152 160 168 176 184 192 208 224 240 256
    272 288 304 320 336 352 368 384 408 432 456 480 504 528 552 576 608 640 672 704 736 768 808 848
    888 928 984 1032 1064 1128 1160 1192 1224 1256 1288 1320 1352 1416 1480 1544 1608 1672 1736 1800
    1864 1928 2024 2088 2152 2216 2280 2408 2472 2536 2600 2664 2728 2792 2856 2976 3104 3240 3368
    3496 3624 3752 3824
    """,
    dtype=int,
    sep=" ",
)
"""Table 5.1.3.2-1: sizes of small transport blocks."""


def transport_block_bits(resource_elements: int, mcs: Mcs) -> int:
    """Payload of one transport block on one layer, without its CRC.

    References:
        TS 38.214, section 5.1.3.2.
    """
    information = resource_elements * mcs.efficiency
    if information <= 3824:
        step = 1 << max(3, int(math.log2(max(information, 1))) - 6)
        wanted = max(24, step * int(information / step))
        return int(_SIZES[np.searchsorted(_SIZES, wanted)])
    step = 1 << (int(math.log2(information - 24)) - 5)
    wanted = max(3840, step * int((information - 24) / step + 0.5))
    if mcs.code_rate <= 0.25:
        blocks = -(-(wanted + 24) // 3816)
    else:
        blocks = -(-(wanted + 24) // 8424) if wanted > 8424 else 1
    return 8 * blocks * -(-(wanted + 24) // (8 * blocks)) - 24


@cache
def _waterfalls() -> dict[tuple[int, float], tuple[list[float], list[float], list[float]]]:
    """By modulation and rate: log2 of code block sizes, SNR at 50 % block errors, slope."""
    rows = json.loads((Path(__file__).parent / "waterfalls.json").read_text())["curves"]
    found = {}
    for row in rows:
        points = row["points"]
        sizes, middles, slopes = (list(column) for column in zip(*points, strict=True))
        key = (row["bits_per_symbol"], row["rate_1024"])
        found[key] = ([math.log2(size) for size in sizes], middles, slopes)
    return found


def block_error_rate(mcs: Mcs, snr_db: float, *, code_block_bits: int, code_blocks: int) -> float:
    """Probability that a transport block is not decoded, in AWGN, at its first transmission.

    From curves measured on this package's own modem (`recipes/waterfalls.py`): a Gaussian
    distribution function of the SNR in dB for each MCS and code block size, between sizes linear
    in the logarithm of the size.

    Args:
        mcs: Modulation and code rate.
        snr_db: Es/N0, or the effective SNR of a block that saw several.
        code_block_bits: Information bits of one code block with CRC.
        code_blocks: How many make up the transport block.
    """
    middle, slope = _waterfall(mcs, code_block_bits)
    error = NormalDist(middle, slope).cdf(2 * middle - snr_db)
    return 1 - (1 - error) ** code_blocks


def required_snr_db(mcs: Mcs, target: float, *, code_block_bits: int, code_blocks: int) -> float:
    """The SNR at which `block_error_rate` is the target."""
    middle, slope = _waterfall(mcs, code_block_bits)
    error = 1 - (1 - target) ** (1 / code_blocks)
    return middle - slope * NormalDist().inv_cdf(error)


def _waterfall(mcs: Mcs, code_block_bits: int) -> tuple[float, float]:
    sizes, middles, slopes = _waterfalls()[mcs.bits_per_symbol, mcs.rate_1024]
    size = math.log2(code_block_bits)
    return float(np.interp(size, sizes, middles)), float(np.interp(size, sizes, slopes))


@dataclass(frozen=True, kw_only=True)
class LinkAdaptation:
    """How a link chooses MCS.

    Args:
        mcs_table: 1 (64-QAM), 2 (256-QAM) or 3 (low spectral efficiency) of TS 38.214.
        bler_target: Share of first transmissions that may fail.
        outer_loop: Whether ACK and NACK move the choice.
        mcs_index: A fixed MCS instead of adaptation; None adapts.
        step_db: Outer loop's step at a NACK.

    Raises:
        LinkError: If a number is out of its table or range.
    """

    mcs_table: int = 2
    bler_target: float = 0.1
    outer_loop: bool = True
    mcs_index: int | None = None
    step_db: float = 0.5

    def __post_init__(self) -> None:
        if self.mcs_table not in MCS_TABLES:
            raise LinkError(
                f"mcs_table is {self.mcs_table}, TS 38.214 section 5.1.3.1 has 1 (64-QAM), "
                "2 (256-QAM) and 3 (low spectral efficiency); choose one of them"
            )
        last = len(MCS_TABLES[self.mcs_table]) - 1
        if self.mcs_index is not None and not 0 <= self.mcs_index <= last:
            raise LinkError(
                f"mcs_index is {self.mcs_index}, table 5.1.3.1-{self.mcs_table} of TS 38.214 goes "
                f"from 0 to {last}; choose one of these or leave it out to adapt"
            )
        if not 0 < self.step_db <= 5:
            raise LinkError(
                f"step_db is {self.step_db:g}, the outer loop takes up to 5; 0.5 is usual"
            )
        if not 1e-4 <= self.bler_target <= 0.9:
            raise LinkError(
                f"bler_target is {self.bler_target:g}, link adaptation takes 0.0001 to 0.9; "
                "0.1 is usual with retransmissions"
            )

    def begin(self) -> AdaptationState:
        """A loop that has seen nothing yet."""
        return AdaptationState(settings=self)


@dataclass(kw_only=True)
class AdaptationState:
    """The loop of one link while it runs."""

    settings: LinkAdaptation
    offset_db: float = 0.0
    """What the outer loop adds to the reported SNR."""

    def report(self, snr: NDArray[np.floating[Any]], resource_elements: int) -> int:
        """The CQI that the receiver sends back: 0 (nothing fits) to 15, four bits.

        Args:
            snr: Es/N0 of data elements after equalising, linear. [elements]
            resource_elements: Of the transport blocks that it is for.
        """
        # A sample of the elements tells as much as all of them.
        sample = snr[:: max(1, snr.size // 256)]
        effective = {
            order: effective_snr_db(float(mutual_information(sample, order).mean()), order)
            for order in (2, 4, 6, 8)
        }
        thresholds = self._thresholds_db(resource_elements, cqi=True)
        rows = CQI_TABLES[self.settings.mcs_table]
        reached = [
            threshold <= effective[mcs.bits_per_symbol]
            for mcs, threshold in zip(rows, thresholds, strict=True)
        ]
        return max((i + 1 for i, yes in enumerate(reached) if yes), default=0)

    def choose(self, cqi: int, resource_elements: int, *, reported_for: int | None = None) -> int:
        """MCS index for the next block, from the last CQI and the outer loop.

        Args:
            cqi: What the receiver reported.
            resource_elements: Of the block: a short one needs more SNR for the same MCS.
            reported_for: Of the blocks that the report was made for, if those are others.
        """
        if self.settings.mcs_index is not None:
            return self.settings.mcs_index
        known = self._thresholds_db(reported_for or resource_elements, cqi=True)
        # Out of range says only "below the first": assume as far below as one step of the table.
        snr_db = known[cqi - 1] if cqi else known[0] - 2.0
        limit = snr_db + self.offset_db
        reached = [t <= limit for t in self._thresholds_db(resource_elements, cqi=False)]
        return max((i for i, yes in enumerate(reached) if yes), default=0)

    def feed_back(self, acknowledged: bool) -> None:
        """Move the outer loop by the fate of one first transmission."""
        if not self.settings.outer_loop:
            return
        target = self.settings.bler_target
        step = self.settings.step_db
        self.offset_db += step * target / (1 - target) if acknowledged else -step
        self.offset_db = min(max(self.offset_db, -20.0), 20.0)

    def _thresholds_db(self, resource_elements: int, *, cqi: bool) -> tuple[float, ...]:
        """SNR that each row of a table needs for the target, for blocks of this size."""
        settings = self.settings
        return _thresholds_db(settings.mcs_table, cqi, settings.bler_target, resource_elements)


def first_error_rate(settings: LinkAdaptation, snr_db: float, *, resource_elements: int) -> float:
    """Share of first transmissions that fail at a steady SNR, at most.

    Args:
        settings: Of the link: its target holds wherever it has an MCS for the SNR.
        snr_db: Es/N0. Below what the lowest MCS needs, that one fails as often as it does.
        resource_elements: Of a block.
    """
    lowest = MCS_TABLES[settings.mcs_table][0]
    blocks = layout(transport_block_bits(resource_elements, lowest), lowest.code_rate)
    fails = block_error_rate(
        lowest, snr_db, code_block_bits=blocks.block_bits, code_blocks=blocks.blocks
    )
    return max(settings.bler_target, fails)


@lru_cache(4096)
def _thresholds_db(
    table: int, cqi: bool, target: float, resource_elements: int
) -> tuple[float, ...]:
    found = []
    for mcs in (CQI_TABLES if cqi else MCS_TABLES)[table]:
        blocks = layout(transport_block_bits(resource_elements, mcs), mcs.code_rate)
        found.append(
            required_snr_db(
                mcs, target, code_block_bits=blocks.block_bits, code_blocks=blocks.blocks
            )
        )
    return tuple(np.maximum.accumulate(found).tolist())
