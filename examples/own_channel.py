"""Plug in a channel of your own: here, a tunnel that lets the radio through every other 20 ms.

python examples/own_channel.py
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from megdt.link.channels import Fading, Gains
from megdt.link.grid import ChannelStatistics, Grid
from megdt.link.transport import Transport
from megdt.records import Packet


@dataclass(frozen=True, kw_only=True)
class Tunnel:
    """Clear and dark by turns; what is clear has `snr_db`, what is dark 30 dB less."""

    snr_db: float
    # Flat, and still within a slot: all that the receiver may assume.
    statistics = ChannelStatistics()

    def begin(self, grid: Grid, rng: np.random.Generator) -> Fading:
        """Start somewhere between two dark stretches."""
        tunnel, start_s = self, float(rng.uniform(0, 0.04))

        class Course:
            def slot(self, index: int, blocks: int) -> tuple[Gains, float]:
                del blocks
                dark = (start_s + index * grid.slot_s) % 0.04 > 0.02
                gain = 10 ** (-30 / 20) if dark else 1.0
                return np.full((1, 1), gain, np.complex64), 10 ** (-tunnel.snr_db / 10)

        return Course()


def main() -> None:
    payload = np.random.default_rng(0).bytes(20_000)
    for harq in ("ir", "none"):
        link = Transport(channel=Tunnel(snr_db=15), harq=harq, max_transmissions=16)
        delivery = link.send(Packet(payload=payload), np.random.default_rng(1))
        uses = delivery.uses
        print(
            f"harq {harq}: {delivery.outcome} after {delivery.latency_s * 1000:.0f} ms, "
            f"{delivery.failed_first} of {delivery.blocks} blocks failed at first, "
            f"{uses.retransmissions:,} of {uses.total:,} uses sent again"
        )


if __name__ == "__main__":
    main()
