from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megdt.errors import LinkError
from megdt.link.grid import Grid
from megdt.link.recording import read_recording, write_recording
from megdt.records import Packet

pytest.importorskip("sigmf", reason="recordings need the package sigmf")

PAYLOAD = np.random.default_rng(1).integers(0, 256, 1500, np.uint8).tobytes()
SYMBOLS = np.exp(2j * np.pi * np.random.default_rng(2).random(2000)).astype(np.complex64)
PLAN = {"codecs": {"seed": "int8"}}


@pytest.fixture
def meta(tmp_path: Path) -> Path:
    return tmp_path / "burst.sigmf-meta"


def write(meta: Path, packet: Packet, **settings: Any) -> np.ndarray:
    write_recording(
        packet,
        meta,
        **{"grid": Grid(), "snr_db": 10, "carrier_frequency_hz": 3.5e9, "plan": PLAN} | settings,
    )
    return np.fromfile(meta.with_suffix(".sigmf-data"), "<c8")


def put(meta: Path, samples: np.ndarray) -> None:
    """Write samples as another tool would: interleaved float32, little endian, no checksum."""
    interleaved = np.stack((samples.real, samples.imag), 1).astype("<f4")
    meta.with_suffix(".sigmf-data").write_bytes(interleaved.tobytes())
    found = json.loads(meta.read_text())
    found["global"].pop("core:sha512", None)
    meta.write_text(json.dumps(found))


@pytest.mark.parametrize(
    "packet",
    [
        Packet(payload=PAYLOAD),
        Packet(symbols=SYMBOLS),
        Packet(payload=b"ab", symbols=SYMBOLS),
        Packet(payload=b"x"),
    ],
    ids=["digital", "analog", "both", "one byte"],
)
def test_what_was_written_is_read_back(meta: Path, packet: Packet) -> None:
    write(meta, packet)
    delivery, plan = read_recording(meta)
    assert delivery.outcome == "delivered"
    assert delivery.payload == packet.payload
    assert plan == PLAN
    if packet.symbols is not None:
        assert np.abs(delivery.symbols - packet.symbols).max() < 0.01  # type: ignore[operator]


def test_it_decodes_after_a_trip_through_numpy_and_a_real_channel(meta: Path) -> None:
    """Late, turned, weaker, with an echo and with noise, as a radio would have it."""
    samples = write(meta, Packet(payload=PAYLOAD, symbols=SYMBOLS))
    rng = np.random.default_rng(3)
    late = np.concatenate((np.zeros(57, np.complex64), samples))
    echoed = late + 0.3j * np.concatenate((np.zeros(3, np.complex64), late[:-3]))
    power = np.mean(np.abs(samples) ** 2)
    noise = rng.standard_normal((2, late.size)) * math.sqrt(power * 10**-1.5 / 2)
    put(meta, 0.02 * np.exp(1.3j) * (echoed + noise[0] + 1j * noise[1]))
    delivery, _ = read_recording(meta)
    assert delivery.payload == PAYLOAD
    errors = np.abs(delivery.symbols - SYMBOLS) ** 2  # type: ignore[operator]
    assert np.mean(errors / delivery.noise_power) == pytest.approx(1, rel=0.15)


def test_too_much_noise_is_a_loss_and_not_an_error(meta: Path) -> None:
    samples = write(meta, Packet(payload=PAYLOAD))
    noise = np.random.default_rng(4).standard_normal((2, samples.size))
    put(meta, samples + 0.8 * (noise[0] + 1j * noise[1]))
    delivery, plan = read_recording(meta)
    assert (delivery.outcome, delivery.payload) == ("lost", b"")
    assert plan == PLAN


def test_sigmfs_own_validator_accepts_it(meta: Path) -> None:
    write(meta, Packet(payload=PAYLOAD))
    command = [sys.executable, "-m", "sigmf.validate", str(meta)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_metadata_say_what_a_radio_needs(meta: Path) -> None:
    samples = write(meta, Packet(payload=PAYLOAD), carrier_frequency_hz=5.8e9)
    found = json.loads(meta.read_text())
    assert found["global"]["core:datatype"] == "cf32_le"
    assert found["global"]["core:sample_rate"] == 128 * 15e3
    assert found["captures"][0]["core:frequency"] == 5.8e9
    note = found["annotations"][0]
    assert note["core:sample_start"] + note["core:sample_count"] < samples.size
    silent = samples[: note["core:sample_start"]]
    assert (silent == 0).all()
    assert {"name": "megdt", "optional": True}.items() <= found["global"]["core:extensions"][
        0
    ].items()


def test_the_waveform_stays_inside_its_carrier(meta: Path) -> None:
    samples = write(meta, Packet(payload=PAYLOAD))
    spectrum = np.abs(np.fft.fft(samples)) ** 2
    frequency = np.abs(np.fft.fftfreq(samples.size, 1 / (128 * 15e3)))
    assert spectrum[frequency < 0.45e6].sum() > 0.97 * spectrum.sum()


def test_a_safer_mcs_is_chosen_for_a_lower_snr(meta: Path) -> None:
    sizes = [write(meta, Packet(payload=PAYLOAD), snr_db=snr).size for snr in (20, 10, 0)]
    assert sizes[0] < sizes[1] < sizes[2]


def change(meta: Path, **values: Any) -> None:
    found = json.loads(meta.read_text())
    found["global"].update(values)
    meta.write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"core:datatype": "ci16_le"}, "has samples of type ci16_le, expected cf32_le"),
        ({"core:sha512": "0" * 128}, "does not hold together"),
        ({"megdt:burst": None}, "has no megdt:burst with mcs_table"),
        ({"megdt:burst": {"mcs_table": 2}}, "has no megdt:burst with mcs_table"),
    ],
)
def test_a_recording_that_is_not_ours_is_refused(
    meta: Path, values: dict[str, Any], message: str
) -> None:
    write(meta, Packet(payload=PAYLOAD))
    change(meta, **values)
    with pytest.raises(LinkError, match=message):
        read_recording(meta)


def test_wrong_numbers_in_the_burst_are_refused(meta: Path) -> None:
    write(meta, Packet(payload=PAYLOAD))
    burst = json.loads(meta.read_text())["global"]["megdt:burst"]
    for key, value in (
        ("mcs_index", 99), ("mcs_table", -1), ("data_bytes", 2.5), ("data_bytes", 10**9),
        ("analog_symbols", True), ("bandwidth_hz", "wide"), ("subcarrier_spacing_khz", 7),
    ):  # fmt: skip
        change(meta, **{"megdt:burst": burst | {key: value}})
        with pytest.raises(LinkError):
            read_recording(meta)


def test_half_a_recording_is_refused(meta: Path) -> None:
    samples = write(meta, Packet(payload=PAYLOAD))
    put(meta, samples[: samples.size // 2])
    with pytest.raises(LinkError, match="does not hold together"):
        read_recording(meta)
    found = json.loads(meta.read_text())
    meta.write_text(json.dumps(found | {"annotations": []}))  # as a tool that keeps none
    with pytest.raises(LinkError, match=r"recording ends .* samples before its last slot"):
        read_recording(meta)


def test_missing_files_are_named(meta: Path) -> None:
    with pytest.raises(LinkError, match=r"cannot read .*burst.sigmf-meta \(No such file"):
        read_recording(meta)
    write(meta, Packet(payload=PAYLOAD))
    meta.with_suffix(".sigmf-data").unlink()
    with pytest.raises(LinkError, match="does not hold together"):
        read_recording(meta)
    meta.write_text("[]")
    with pytest.raises(LinkError, match="is not SigMF metadata"):
        read_recording(meta)
    with pytest.raises(LinkError, match=r"does not end in .sigmf-meta"):
        read_recording(meta.with_suffix(".wav"))
    with pytest.raises(LinkError, match="cannot write"):
        write(meta.parent / "none" / "a.sigmf-meta", Packet(payload=b"x"))
