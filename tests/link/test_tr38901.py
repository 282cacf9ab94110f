from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import pytest

from megdt.errors import LinkError
from megdt.link.grid import Grid
from megdt.link.radio import RadioLink
from megdt.link.tr38901 import Cell, MultipathFading

pytest.importorskip("sionna.phy", reason="channels of TR 38.901 need Sionna")

GRID = Grid(bandwidth_hz=5e6)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Sionna compiles itself with parts of torch that torch says it will drop."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module="torch")
        yield


def multipath(model: str, **settings: float) -> MultipathFading:
    defaults = {"snr_db": 10.0, "delay_spread_s": 1e-7, "speed_m_s": 3.0}
    return MultipathFading(model=model, carrier_frequency_hz=3.5e9, **(defaults | settings))


def cell(model: str, **settings: float) -> Cell:
    defaults = {"distance_m": 100.0, "speed_m_s": 3.0, "tx_power_dbm": 23.0, "noise_figure_db": 7.0}
    return Cell(model=model, carrier_frequency_hz=3.5e9, **(defaults | settings))


def gains(channel: MultipathFading | Cell, slots: int = 4, seed: int = 0) -> np.ndarray:
    fading = channel.begin(GRID, np.random.default_rng(seed))
    return np.stack([fading.slot(i, GRID.resource_blocks)[0] for i in range(slots)])


@pytest.mark.parametrize("model", ["tdl-a", "tdl-e", "cdl-b"])
def test_delay_lines_have_unit_mean_power(model: str) -> None:
    power = np.mean([np.mean(np.abs(gains(multipath(model), 1, s)) ** 2) for s in range(16)])
    assert power == pytest.approx(1, abs=0.35)


def test_the_same_generator_gives_the_same_course() -> None:
    for channel in (multipath("tdl-a"), multipath("cdl-c"), cell("umi")):
        assert (gains(channel, seed=3) == gains(channel, seed=3)).all()
        assert (gains(channel, seed=3) != gains(channel, seed=4)).any()


def test_echoes_make_subcarriers_differ_and_more_so_when_they_are_longer() -> None:
    spread = [
        np.mean(
            [np.var(np.abs(gains(multipath("tdl-a", delay_spread_s=d), 1, s))) for s in range(9)]
        )
        for d in (1e-8, 3e-7)
    ]
    assert spread[0] < 0.3 * spread[1]


def test_speed_makes_the_channel_change() -> None:
    def change(speed_m_s: float) -> float:
        found = gains(multipath("tdl-a", speed_m_s=speed_m_s), 20)
        return float(np.mean(np.abs(found[19] - found[0]) ** 2))

    assert change(0.0) == pytest.approx(0, abs=1e-9)
    assert change(30.0) > 0.3 > 20 * change(0.1)


def test_a_longer_stretch_than_is_drawn_at_once_goes_on() -> None:
    fading = multipath("tdl-a").begin(GRID, np.random.default_rng(0))
    late, _ = fading.slot(300, 5)
    assert late.shape == (14, 60)
    assert (fading.slot(300, 5)[0] == late).all()


def test_a_cells_snr_falls_with_distance_and_power() -> None:
    def snr_db(**settings: float) -> float:
        found = []
        for seed in range(4):
            fading = cell("umi", **settings).begin(GRID, np.random.default_rng(seed))
            h, noise_power = fading.slot(0, GRID.resource_blocks)
            found.append(10 * np.log10(np.mean(np.abs(h) ** 2) / noise_power))
        return float(np.mean(found))

    near, far = snr_db(distance_m=30.0), snr_db(distance_m=300.0)
    assert near > far + 15
    # The same course of the channel: power and noise figure move the SNR one to one.
    assert snr_db(distance_m=30.0, tx_power_dbm=13.0) == pytest.approx(near - 10, abs=0.01)
    assert snr_db(distance_m=30.0, noise_figure_db=10.0) == pytest.approx(near - 3, abs=0.01)


def test_free_space_is_what_a_line_of_sight_at_30_m_comes_near_to() -> None:
    """The link budget in absolute numbers, against the close-in formula of TR 38.901."""
    best = -np.inf
    for seed in range(5):  # some of these drops have a line of sight
        fading = cell("umi", distance_m=30.0, speed_m_s=0.0).begin(
            GRID, np.random.default_rng(seed)
        )
        h, noise_power = fading.slot(0, GRID.resource_blocks)
        best = max(best, 10 * np.log10(np.mean(np.abs(h) ** 2) / noise_power))
    loss_db = 32.4 + 21 * np.log10(np.hypot(30, 8.5)) + 20 * np.log10(3.5)
    noise_dbm = -174 + 10 * np.log10(GRID.resource_blocks * 180e3) + 7
    # Shadowing of 4 dB, and the best of five.
    assert best == pytest.approx(23 - loss_db - noise_dbm, abs=9)


@pytest.mark.parametrize("channel", ["tdl-c", "cdl-a", "umi", "uma"])
def test_a_packet_crosses_every_family(channel: str) -> None:
    from megdt.records import Packet

    link = RadioLink(channel=channel, distance_m=50)
    payload = bytes(range(200))
    assert link.send(Packet(payload=payload), np.random.default_rng(1)).payload == payload


def test_echoes_beyond_the_cyclic_prefix_are_refused() -> None:
    grid = Grid(bandwidth_hz=20e6, subcarrier_spacing_khz=120)
    fading = multipath("tdl-a", delay_spread_s=1e-6).begin(grid, np.random.default_rng(0))
    with pytest.raises(LinkError, match=r"comes later than the cyclic prefix of 0.59 us"):
        fading.slot(0, 1)


@pytest.mark.parametrize("delay_spread_s", [0.0, -1.0, 1e-3, float("nan")])
def test_a_delay_spread_out_of_range_is_refused(delay_spread_s: float) -> None:
    with pytest.raises(LinkError, match="delay_spread_s is"):
        multipath("tdl-a", delay_spread_s=delay_spread_s)


@pytest.mark.parametrize("distance_m", [1.0, 1e5, float("nan")])
def test_a_distance_out_of_range_is_refused(distance_m: float) -> None:
    with pytest.raises(LinkError, match=r"cells of TR 38.901 reach from 10 to 5000"):
        cell("umi", distance_m=distance_m)
