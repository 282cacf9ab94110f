"""Several senders at once in the same channel uses: what arrives is the sum of their symbols.

The simulator sends packets one by one, and the receiver has one noise. So each of n packets arrives
with noise of an n-th of its power, independent of the others': the sum has the noise of one receiver.
What takes the packets may add all of them, and do nothing else with them: no receiver has them apart.
So who has nothing to say sends zeros, for its part of the noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from megdt.errors import LinkError
from megdt.link.radio import RadioLink
from megdt.link.transport import check_symbols
from megdt.records import Delivery, Packet


@dataclass(frozen=True, kw_only=True)
class SuperposedLink:
    """One of several senders that control their power and timing, so that they arrive alike.

    Its packets all have the same number of symbols. Channel uses and latency are the round's;
    airtime and energy are for the slots and resource blocks in which this packet has something.

    Args:
        link: To the receiver.
        among: Senders in all; one is a link like any other.

    Raises:
        LinkError: If the channel is not AWGN.
    """

    link: RadioLink
    among: int

    def __post_init__(self) -> None:
        if self.link.channel != "awgn":
            raise LinkError(
                f"channel is {self.link.channel!r}, symbols of several senders add up on awgn only: "
                "power control under fading is not built; take awgn, or fusion by the gate"
            )

    def send(self, packet: Packet, rng: np.random.Generator) -> Delivery:
        """Carry one packet of the round.

        Raises:
            LinkError: If it has a payload or no symbols, or more than unit mean power where it has
                something.
        """
        if packet.symbols is None or packet.payload:
            raise LinkError(
                f"a packet of {packet.bits} bits is to be superposed, symbols alone add up on the "
                "air; take codec analog"
            )
        present = packet.symbols != 0
        check_symbols(packet.symbols[present] if present.any() else None)
        whole = self.link.send(packet, rng)
        symbols = whole.symbols
        if symbols is not None:
            noise = symbols - packet.symbols
            symbols = packet.symbols + noise / np.float32(np.sqrt(self.among))
        grid = self.link.transport.grid
        blocks = _any_in(present, grid.block_data_elements)
        slots = _any_in(present, grid.block_data_elements * grid.resource_blocks)
        return replace(
            whole,
            symbols=symbols,
            noise_power=np.asarray(whole.noise_power, np.float32) / np.float32(self.among),
            airtime_s=whole.airtime_s * slots,
            radiated_j=whole.radiated_j * blocks,
            among=self.among,
            round_s=whole.airtime_s,
        )


def _any_in(present: NDArray[np.bool_], size: int) -> float:
    """Share of the groups of this size that have something."""
    return float(np.mean(np.logical_or.reduceat(present, np.arange(0, present.size, size))))
