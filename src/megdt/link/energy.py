"""Energy of computing: measured seconds times a device's power while it computes."""

from __future__ import annotations

from dataclasses import dataclass

from megdt.records import Side


@dataclass(frozen=True, kw_only=True)
class DeviceProfile:
    """A device's power while a stage runs on it, and where the number is from."""

    name: str
    active_power_w: float
    source: str

    def energy_j(self, seconds: float) -> float:
        """Energy of computing for this long."""
        return seconds * self.active_power_w


PROFILES = {
    Side.ES: DeviceProfile(
        name="two cores of a server",
        active_power_w=7.5,
        source="AMD EPYC 9654 data sheet: 360 W TDP over 96 cores, times 2",
    ),
    Side.UE: DeviceProfile(
        name="phone",
        active_power_w=5.0,
        source="order of magnitude of a phone's sustained power before it throttles; an assumption",
    ),
}
"""What the ledger charges computing with. Seconds are measured where the program runs, so the
joules say what these seconds would cost on such a device, not what the device would need."""
