from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import pytest

from megdt.errors import LinkError
from megdt.link.channels import awgn
from megdt.link.grid import Grid, estimate, fill_slot
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

    # So weak that noise, and not what echoes disturb, decides.
    near, far = (snr_db(distance_m=d, tx_power_dbm=-25.0) for d in (30.0, 300.0))
    assert near > far + 15
    # The same course of the channel: power and noise figure move the SNR one to one.
    assert snr_db(distance_m=30.0, tx_power_dbm=-35.0) == pytest.approx(near - 10, abs=0.2)
    assert snr_db(distance_m=30.0, tx_power_dbm=-25.0, noise_figure_db=10.0) == pytest.approx(
        near - 3, abs=0.2
    )


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


@pytest.mark.parametrize("model", [f"{f}-{x}" for f in ("tdl", "cdl") for x in "abcde"])
def test_the_receiver_is_told_the_noise_that_is_there(model: str) -> None:
    """Where echoes are long and the SNR high, what the estimator cannot follow would show."""
    channel = multipath(model, snr_db=30.0, delay_spread_s=1e-7, speed_m_s=1.0)
    rng, true, told = np.random.default_rng(5), 0.0, 0.0
    for seed in range(2):
        fading = channel.begin(GRID, np.random.default_rng(seed))
        for slot in range(0, 250, 25):
            h, noise_power = fading.slot(slot, GRID.resource_blocks)
            pilots = fill_slot(np.zeros(0, np.complex64), GRID, GRID.resource_blocks)
            received = awgn(h * pilots, noise_power, rng)
            found, error = estimate(received, GRID, noise_power, channel.statistics)
            true += noise_power + float(np.mean(np.abs(found - h) ** 2))
            told += noise_power + error
    assert true / told == pytest.approx(1, abs=0.2)


def test_the_abstract_link_is_near_the_bit_true_one_with_echoes() -> None:
    from megdt.records import Packet

    uses = []
    for coding in ("ldpc", "abstract"):
        link = RadioLink(
            channel="tdl-c", coding=coding, snr_db=20, bandwidth_hz=5e6, delay_spread_s=3e-7  # type: ignore[arg-type]
        )  # fmt: skip
        payload = np.random.default_rng(2).bytes(4000)
        sent = [link.send(Packet(payload=payload), np.random.default_rng(s)) for s in range(5)]
        assert all(d.outcome == "delivered" for d in sent)
        uses.append(sum(d.uses.total for d in sent))
    assert uses[1] == pytest.approx(uses[0], rel=0.1)


def test_echoes_beyond_the_cyclic_prefix_disturb_as_noise_does() -> None:
    late = Grid(bandwidth_hz=20e6, subcarrier_spacing_khz=120)
    channel = multipath("tdl-a", snr_db=40.0, delay_spread_s=1e-6)
    powers = [channel.begin(grid, np.random.default_rng(0)).slot(0, 1)[1] for grid in (GRID, late)]
    assert powers[0] < 0.1 < powers[1]


def test_drawing_a_channel_leaves_torchs_own_numbers_alone() -> None:
    import torch

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    gains(multipath("tdl-a"), 1)
    assert (torch.rand(3) == expected).all()


def test_what_stands_still_stays_as_it_is() -> None:
    fading = multipath("tdl-a", speed_m_s=0.0).begin(GRID, np.random.default_rng(0))
    assert np.abs(fading.slot(300, 5)[0] - fading.slot(0, 5)[0]).max() < 1e-6


@pytest.mark.parametrize("delay_spread_s", [0.0, -1.0, 1e-3, float("nan")])
def test_a_delay_spread_out_of_range_is_refused(delay_spread_s: float) -> None:
    with pytest.raises(LinkError, match="delay_spread_s is"):
        multipath("tdl-a", delay_spread_s=delay_spread_s)


@pytest.mark.parametrize("distance_m", [1.0, 1e5, float("nan")])
def test_a_distance_out_of_range_is_refused(distance_m: float) -> None:
    with pytest.raises(LinkError, match=r"cells of TR 38.901 reach from 10 to 5000"):
        cell("umi", distance_m=distance_m)
