from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megdt.errors import LinkError, MissingExtraError
from megdt.link.channels import BlockFading
from megdt.link.radio import CHANNELS, RadioLink
from megdt.link.traces import TraceChannel
from megdt.records import Packet


def test_flat_channels_are_what_their_names_say() -> None:
    awgn, rayleigh, rician = (
        RadioLink(channel=c, snr_db=3, k_factor_db=10).transport.channel
        for c in ("awgn", "rayleigh", "rician")
    )
    assert awgn == BlockFading(snr_db=3, k_factor=math.inf)
    assert isinstance(rayleigh, BlockFading)
    assert isinstance(rician, BlockFading)
    assert (rayleigh.k_factor, rician.k_factor) == (0, 10)


def test_coherence_time_follows_from_speed_and_carrier_unless_it_is_given() -> None:
    def coherence(**settings: float) -> float:
        channel = RadioLink(channel="rayleigh", **settings).transport.channel  # type: ignore[arg-type]
        assert isinstance(channel, BlockFading)
        return channel.coherence_time_s

    assert coherence(speed_m_s=30, carrier_frequency_hz=3e9) == pytest.approx(0.423 / 300, rel=1e-2)
    assert coherence(speed_m_s=0) == math.inf
    assert coherence(coherence_time_s=0.02) == 0.02


def test_a_trace_file_is_a_channel_of_its_own_snr(tmp_path: Path) -> None:
    (tmp_path / "walk.csv").write_text("0,20\n1,25\n")
    link = RadioLink(channel=f"trace:{tmp_path / 'walk.csv'}")
    assert isinstance(link.transport.channel, TraceChannel)
    assert link.mean_snr_db is None
    assert link.send(Packet(payload=b"seed"), np.random.default_rng(0)).payload == b"seed"


def test_knowing_the_channel_frees_its_pilots_and_the_ideal_code_its_control() -> None:
    assert RadioLink().transport.grid.pilots
    assert not RadioLink(csi="perfect").transport.grid.pilots
    assert not RadioLink(coding="ideal").transport.grid.control


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channel": "fog"}, f"channel is 'fog', known: {', '.join(CHANNELS)} and trace:FILE"),
        ({"channel": "trace:none.csv"}, "cannot read trace none.csv"),
        ({"channel": "umi", "snr_db": 3.0}, "channel umi has its own SNR; leave snr_db out"),
        ({"snr_db": math.nan}, "snr_db is nan, this link takes -40 to 60"),
        ({"csi": "guessed"}, "csi is 'guessed', known: estimated, perfect"),
        ({"coding": "turbo"}, "coding is 'turbo'"),
        ({"mcs_table": 4}, "mcs_table is 4, TS 38.214 section 5.1.3.1 has 1"),
        ({"mcs_index": 28}, "mcs_index is 28, table 5.1.3.1-2 of TS 38.214 goes from 0 to 27"),
        ({"bler_target": 0.0}, "bler_target is 0"),
        ({"speed_m_s": -1.0}, "speed_m_s is -1, this link takes 0 to 300"),
        ({"carrier_frequency_hz": 1e6}, "carrier_frequency_hz is 1e"),
        ({"bandwidth_hz": 1e9}, "bandwidth_hz is 1e"),
        ({"subcarrier_spacing_khz": 10}, "TS 38.211 has 15, 30, 60, 120"),
        ({"speed_m_s": 250.0, "carrier_frequency_hz": 28e9}, "more than a tenth of the subcarrier"),
        ({"channel": "umi", "distance_m": 5.0}, "reach from 10 to 5000"),
        ({"channel": "tdl-a", "delay_spread_s": 1.0}, "delay_spread_s is 1"),
        ({"channel": "rayleigh", "coherence_time_s": 0.0}, "coherence_time_s is 0"),
        ({"harq_rtt_slots": 0}, "harq_rtt_slots is 0"),
        ({"deadline_s": -1.0}, "deadline_s is -1"),
    ],
)
def test_an_impossible_setting_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(LinkError, match=message):
        RadioLink(**settings)


def test_a_missing_sionna_is_said_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sionna.phy", None)
    monkeypatch.setitem(sys.modules, "sionna", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'megdt\[channels\]'"):
        RadioLink(channel="tdl-a").send(Packet(payload=b"x"), np.random.default_rng(0))
