"""Channels of 3GPP TR 38.901 from Sionna: delay lines, clusters, and cells.

Sionna takes seconds to import, so that happens when a course of a channel is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from megdt.errors import LinkError, MissingExtraError
from megdt.link.channels import Fading, Gains, check_snr_db, doppler_hz
from megdt.link.grid import BLOCK_SUBCARRIERS, SLOT_SYMBOLS, ChannelStatistics, Grid

if TYPE_CHECKING:
    import torch


_LAST_ECHO = {"a": 9.66, "b": 4.79, "c": 8.66, "d": 12.6, "e": 20.7}
"""Delay of the last echo in delay spreads; tables 7.7.1-1 to 7.7.2-5."""


@dataclass(frozen=True, kw_only=True)
class MultipathFading:
    """Clustered echoes of 3GPP TR 38.901, section 7.7, from Sionna.

    Args:
        model: "tdl-a" to "tdl-e", "cdl-a" to "cdl-e".
        snr_db: Mean Es/N0.
        delay_spread_s: Root mean square of the echoes' delays.
        carrier_frequency_hz: Gives the Doppler shift, with the speed.
        speed_m_s: Of the UE.
    """

    model: str
    snr_db: float
    delay_spread_s: float
    carrier_frequency_hz: float
    speed_m_s: float

    def __post_init__(self) -> None:
        check_snr_db(self.snr_db)
        if not 0 < self.delay_spread_s <= 1e-5:
            raise LinkError(
                f"delay_spread_s is {self.delay_spread_s:g}, it goes up to 1e-05; TR 38.901 has "
                "1e-08 (very short) to 1e-06 (very long)"
            )

    @property
    def statistics(self) -> ChannelStatistics:
        """Until the last echo: a bound that leaves any out tells the receiver too little noise."""
        return ChannelStatistics(
            longest_delay_s=_LAST_ECHO[self.model[-1]] * self.delay_spread_s,
            doppler_hz=doppler_hz(self.speed_m_s, self.carrier_frequency_hz),
        )

    def begin(self, grid: Grid, rng: np.random.Generator) -> Fading:
        """Draw echoes from Sionna."""
        family, letter = self.model.split("-")
        with _sionna(rng):
            from sionna.phy.channel import tr38901

            if family == "tdl":
                source = tr38901.TDL(
                    letter.upper(),
                    self.delay_spread_s,
                    self.carrier_frequency_hz,
                    min_speed=self.speed_m_s,
                    max_speed=self.speed_m_s,
                )
            else:
                source = tr38901.CDL(
                    letter.upper(),
                    self.delay_spread_s,
                    self.carrier_frequency_hz,
                    ut_array=_one_antenna(self.carrier_frequency_hz),
                    bs_array=_one_antenna(self.carrier_frequency_hz),
                    min_speed=self.speed_m_s,
                    max_speed=self.speed_m_s,
                )

        def draw(steps: int, rate_hz: float) -> tuple[torch.Tensor, torch.Tensor]:
            return source(1, steps, rate_hz)  # type: ignore[no-any-return]

        return _Echoes(
            draw,
            grid,
            rng,
            noise_power=10 ** (-self.snr_db / 10),
            doppler_hz=self.statistics.doppler_hz,
        )


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A UE in a cell of TR 38.901: the SNR follows from position, power and bandwidth.

    Args:
        model: "umi" (street canyon, base station at 10 m) or "uma" (roof tops, 25 m).
        distance_m: On the ground, from the base station.
        carrier_frequency_hz: 0.5 to 100 GHz.
        speed_m_s: Of the UE, in a direction drawn at random.
        tx_power_dbm: Spread evenly over the carrier.
        noise_figure_db: Of the receiver, over kT at 290 K.
    """

    model: str
    distance_m: float
    carrier_frequency_hz: float
    speed_m_s: float
    tx_power_dbm: float
    noise_figure_db: float

    def __post_init__(self) -> None:
        if not 10 <= self.distance_m <= 5000:
            raise LinkError(
                f"distance_m is {self.distance_m:g}, the cells of TR 38.901 reach from 10 to 5000; "
                "choose a distance in that range"
            )

    @property
    def statistics(self) -> ChannelStatistics:
        """Echoes of cells come up to some microseconds late, later ones of roof tops than of streets."""
        return ChannelStatistics(
            longest_delay_s={"umi": 3e-6, "uma": 6e-6}[self.model],
            doppler_hz=doppler_hz(self.speed_m_s, self.carrier_frequency_hz),
        )

    def begin(self, grid: Grid, rng: np.random.Generator) -> Fading:
        """Drop the UE, draw path loss, shadowing and echoes from Sionna."""
        heading, angle = rng.uniform(0, 2 * math.pi, 2)
        height = {"umi": 10.0, "uma": 25.0}[self.model]
        place = (self.distance_m * math.cos(angle), self.distance_m * math.sin(angle), 1.5)
        velocity = (self.speed_m_s * math.cos(heading), self.speed_m_s * math.sin(heading), 0.0)
        with _sionna(rng):
            import torch
            from sionna.phy.channel import tr38901

            model = {"umi": tr38901.UMi, "uma": tr38901.UMa}[self.model](
                carrier_frequency=self.carrier_frequency_hz,
                o2i_model="low",
                ut_array=_one_antenna(self.carrier_frequency_hz),
                bs_array=_one_antenna(self.carrier_frequency_hz),
                direction="downlink",
            )
            model.set_topology(
                ut_loc=torch.tensor([[place]]),
                bs_loc=torch.tensor([[(0.0, 0.0, height)]]),
                ut_orientations=torch.zeros(1, 1, 3),
                bs_orientations=torch.zeros(1, 1, 3),
                ut_velocities=torch.tensor([[velocity]]),
                in_state=torch.zeros(1, 1, dtype=torch.bool),
            )

        def draw(steps: int, rate_hz: float) -> tuple[torch.Tensor, torch.Tensor]:
            return model(steps, rate_hz)  # type: ignore[no-any-return]

        subcarriers = grid.resource_blocks * BLOCK_SUBCARRIERS
        sent_w = 10 ** (self.tx_power_dbm / 10) / 1000 / subcarriers
        noise_w = 1.380649e-23 * 290 * grid.spacing_hz * 10 ** (self.noise_figure_db / 10)
        return _Echoes(
            draw,
            grid,
            rng,
            noise_power=noise_w / sent_w,
            doppler_hz=self.statistics.doppler_hz,
            with_path_loss=True,
        )


_CHUNK_SLOTS = 256


class _Echoes:
    """Gains over time and frequency from echoes, drawn in stretches of slots.

    Stretches are independent of each other: a packet longer than one meets a jump. What stands
    still has one stretch for ever.
    """

    def __init__(
        self,
        draw: Callable[[int, float], tuple[torch.Tensor, torch.Tensor]],
        grid: Grid,
        rng: np.random.Generator,
        *,
        noise_power: float,
        doppler_hz: float,
        with_path_loss: bool = False,
    ) -> None:
        self.draw, self.grid, self.rng = draw, grid, rng
        self.noise_power, self.doppler_hz = noise_power, doppler_hz
        self.with_path_loss = with_path_loss
        self.chunks: list[tuple[NDArray[Any], NDArray[Any], float]] = []

    def slot(self, index: int, blocks: int) -> tuple[Gains, float]:
        chunk, place = divmod(index, _CHUNK_SLOTS)
        if self.doppler_hz == 0:
            chunk = 0
        while len(self.chunks) <= chunk:
            self.chunks.append(self._next_chunk())
        amplitudes, rotations, noise_power = self.chunks[chunk]
        now = amplitudes[place * SLOT_SYMBOLS : (place + 1) * SLOT_SYMBOLS]
        return now @ rotations[:, : blocks * BLOCK_SUBCARRIERS], noise_power

    def _next_chunk(self) -> tuple[NDArray[Any], NDArray[Any], float]:
        """Amplitudes [time, echoes], rotations [echoes, subcarriers] and N0."""
        with _sionna(self.rng):
            drawn, delays = self.draw(_CHUNK_SLOTS * SLOT_SYMBOLS, SLOT_SYMBOLS / self.grid.slot_s)
        amplitudes = drawn.numpy()[0, 0, 0, 0, 0].T
        tau = delays.numpy().reshape(-1)[: amplitudes.shape[1]]
        used = np.abs(amplitudes).max(0) > 0
        amplitudes, tau = amplitudes[:, used], tau[used] - tau[used].min()
        strong = (np.abs(amplitudes) ** 2).mean(0)
        # What comes later than the cyclic prefix, or turns within a symbol, disturbs as noise does.
        late = float(strong[tau > self.grid.cyclic_prefix_s].sum() / strong.sum())
        disturbance = late + (2 * math.pi * self.doppler_hz / self.grid.spacing_hz) ** 2 / 24
        noise_power = self.noise_power
        if self.with_path_loss:
            # Gains of unit power, and the loss as noise: estimator and demapper see usual scales.
            power = float(strong.sum())
            amplitudes, noise_power = amplitudes / math.sqrt(power), noise_power / power
        noise_power += disturbance
        frequencies = (
            np.arange(self.grid.resource_blocks * BLOCK_SUBCARRIERS) * self.grid.spacing_hz
        )
        rotations = np.exp(-2j * np.pi * tau[:, None] * frequencies).astype(np.complex64)
        return amplitudes.astype(np.complex64), rotations, noise_power


def _one_antenna(carrier_frequency_hz: float) -> Any:
    from sionna.phy.channel.tr38901 import PanelArray

    return PanelArray(
        num_rows_per_panel=1,
        num_cols_per_panel=1,
        polarization="single",
        polarization_type="V",
        antenna_pattern="omni",
        carrier_frequency=carrier_frequency_hz,
    )


@contextmanager
def _sionna(rng: np.random.Generator) -> Iterator[None]:
    """Sionna draws from global generators: seeded here, so that `rng` decides, and then put back."""
    try:
        import torch
        from sionna.phy import config
    except ImportError as error:
        raise MissingExtraError(
            f"channels of TR 38.901 need Sionna ({error}); pip install 'megdt[channels]'"
        ) from error
    with torch.random.fork_rng(devices=[]):
        config.seed = int(rng.integers(2**31))
        yield
