from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from megdt.errors import LinkError
from megdt.link.channels import capacity_bits
from megdt.link.grid import Grid
from megdt.link.traces import TraceChannel, read_trace


def read(path: Path, text: str) -> TraceChannel:
    path.write_text(text)
    return read_trace(path, uses_per_s=840_000)


def test_a_csv_holds_each_snr_until_the_next(tmp_path: Path) -> None:
    channel = read(tmp_path / "a.csv", "time_s,snr_db\n0,10\n0.01,-5\n0.03,20\n")
    assert channel.times_s == (0.0, 0.01, 0.03)
    assert channel.snr_db == (10.0, -5.0, 20.0)
    assert channel.length_s == pytest.approx(0.05)  # the last one as long as the one before


@pytest.mark.parametrize("text", ["0.000e+00,1.0e+01\n1e-3,12\n", "1e-3,10\n2e-3,12\n"])
def test_numbers_in_any_notation_are_no_header(tmp_path: Path, text: str) -> None:
    assert read(tmp_path / "a.csv", text).snr_db == (10.0, 12.0)


def test_samples_finer_than_a_slot_are_met_where_the_slot_is(tmp_path: Path) -> None:
    text = "".join(f"{i * 1e-4:.4f},{i % 20}\n" for i in range(40))
    fading = read(tmp_path / "a.csv", text).begin(Grid(), np.random.default_rng(0))
    assert fading.slot(0, 1)[1] == pytest.approx(10 ** (-5 / 10))


def test_the_receiver_meets_the_snr_of_the_moment_and_the_trace_repeats(tmp_path: Path) -> None:
    fading = read(tmp_path / "a.csv", "0,10\n0.002,0\n").begin(Grid(), np.random.default_rng(0))
    told = [fading.slot(i, 5)[1] for i in range(8)]
    assert told == pytest.approx([0.1, 0.1, 1, 1] * 2)


def test_a_mahimahi_trace_becomes_the_snr_of_its_rate(tmp_path: Path) -> None:
    # One chance each millisecond: 1500 bytes, 12 Mbit/s over 840,000 uses a second.
    channel = read(tmp_path / "a.trace", "".join(f"{t}\n" for t in range(1, 201)))
    assert (channel.times_s, channel.length_s) == ((0.0, 0.1), 0.2)
    assert capacity_bits(channel.snr_db[0]) * 840_000 == pytest.approx(12e6, rel=1e-6)
    assert channel.snr_db[1] == pytest.approx(channel.snr_db[0])


def test_a_silent_stretch_of_a_mahimahi_trace_is_the_lowest_snr(tmp_path: Path) -> None:
    channel = read(tmp_path / "a.trace", "1\n1\n250\n")
    assert channel.snr_db[1] == pytest.approx(-40)
    assert channel.length_s == 0.25


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no samples"),
        ("time_s,snr_db\n", "has no samples"),
        ("0,10\n0.5,high\n", "line 2 is '0.5,high', expected time_s,snr_db"),
        ("0,10\n0.5\n", "line 2 is '0.5', expected time_s,snr_db"),
        ("0,10\n0.5,nan\n", "line 2 is '0.5,nan'"),
        ("0,10\n2,5\n1,5\n", "line 3 has time 1 after 2; sort it by time"),
        ("0,10\n1,400\n", "line 2 has SNR 400 dB"),
        ("0,10\n1e308,5\n", "is time in seconds"),
        ("O.0,30\n1,20\n", r"line 1 is 'O.0,30'"),
        ("99999999999999\n", "milliseconds up to 100000000"),
        ("5\n3\n", "line 2 has 3 ms after 5 ms; sort it by time"),
        ("5\n7.5\n", "line 2 is '7.5', expected a whole number of milliseconds"),
        ("5\nlate\n", "line 2 is 'late', expected a whole number"),
        ("-5\n", "line 1 is '-5'"),
    ],
)
def test_a_wrong_trace_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LinkError, match=message):
        read(tmp_path / "bad", text)


def test_a_trace_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match=r"cannot read trace .*No such file"):
        read_trace(tmp_path / "none", uses_per_s=1.0)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LinkError, match="is not text"):
        read_trace(tmp_path / "binary", uses_per_s=1.0)
