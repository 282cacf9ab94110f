"""When a packet is there: waiting for a grant, slots on the air, retransmissions, propagation."""

from __future__ import annotations

from dataclasses import dataclass

from megdt.errors import LinkError
from megdt.link.channels import LIGHT_M_S
from megdt.link.grid import Grid


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Delays of a scheduled link, in slots of its grid.

    Args:
        scheduling_slots: From the packet's arrival to its first slot: request, grant, preparation.
        harq_rtt_slots: From a block's slot to the earliest slot of its retransmission: decoding,
            feedback and scheduling. Reports of the channel are as old.
        processing_slots: From the end of a slot to its payload.
        distance_m: Between the two ends.

    Raises:
        LinkError: If a number is out of its range.

    References:
        3GPP TS 38.214, sections 5.3 and 6.4: preparation times of 8 to 13 OFDM symbols at 15 kHz;
        TS 38.213, section 9.2.3: feedback at most 15 slots after the data. The defaults are
        the 4 + 4 subframes of LTE's round trip, which leave a 5G receiver time to spare.
    """

    scheduling_slots: int = 4
    harq_rtt_slots: int = 8
    processing_slots: int = 2
    distance_m: float = 100.0

    def __post_init__(self) -> None:
        for name in ("scheduling_slots", "harq_rtt_slots", "processing_slots"):
            value, least = getattr(self, name), 1 if name == "harq_rtt_slots" else 0
            if not least <= value <= 1000:
                raise LinkError(
                    f"{name} is {value}, it goes from {least} to 1000; see TS 38.213, section 9.2.3"
                )
        if not 0 <= self.distance_m <= 1e6:
            raise LinkError(
                f"distance_m is {self.distance_m:g}, it goes from 0 to 1e+06; give metres"
            )

    def arrival_s(self, slots: float, grid: Grid) -> float:
        """From handing over the packet until its last slot is decoded.

        Args:
            slots: Slots since the first one, that one and the last one included.
            grid: Gives their length.
        """
        waiting = self.scheduling_slots + slots + self.processing_slots
        return waiting * grid.slot_s + self.distance_m / LIGHT_M_S
