from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from megdt import profiling
from megdt.errors import ScenarioError
from megdt.link.energy import DeviceProfile, load_profile
from megdt.models.bundle import Bundle
from megdt.profiling import measure_profile


class PacedBundle:
    """Takes 2 G operations in 20 ms, half of them for each of its two networks."""

    device = torch.device("cpu")

    def __init__(self, clock: list[float]) -> None:
        self.flops = 0.0
        self.clock = clock

    def embed(self, prompts: Sequence[str]) -> Any:
        return np.zeros((len(prompts), 192), np.float32)

    def decode(self, latents: Any, noise_power: Any = None) -> None:
        self.flops += 1e9
        self.clock[0] += 0.01

    def denoise(self, *args: Any, **kwargs: Any) -> None:
        self.decode(None)


@pytest.fixture
def paced(monkeypatch: pytest.MonkeyPatch) -> PacedBundle:
    clock = [100.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr(profiling.time, "perf_counter", lambda: clock[0])  # type: ignore[attr-defined]
    monkeypatch.setattr(profiling.time, "sleep", sleep)  # type: ignore[attr-defined]
    return PacedBundle(clock)


def measure(bundle: Any, folder: Path, **options: Any) -> DeviceProfile:
    options = {"name": "mine", "date": "2026-01-31", "rapl": folder / "none", **options}
    path = folder / "mine.toml"
    path.write_text(measure_profile(bundle, **options), encoding="utf-8")
    return load_profile(str(path))


def test_the_rate_is_operations_over_seconds(paced: PacedBundle, tmp_path: Path) -> None:
    profile = measure(paced, tmp_path)
    assert profile.name == "mine"
    assert profile.flops_per_s == pytest.approx(1e11)
    source = profile.sources["flops_per_s"]
    assert source.startswith("measured by megdt profile on 2026-01-31, ")
    assert f"torch {torch.__version__}" in source
    assert "2.0e9 operations" in source


def test_the_median_run_counts_and_slow_runs_are_few(paced: PacedBundle, tmp_path: Path) -> None:
    runs = iter([0.0, 0.01, 9.0, 0.02, 0.03, 0.04])  # the first is only for warming up
    decode = paced.decode

    def stumble(latents: Any, noise_power: Any = None) -> None:
        decode(latents)
        if latents is not None:
            paced.clock[0] += next(runs)

    paced.decode = stumble  # type: ignore[method-assign]
    profile = measure(paced, tmp_path)
    assert "the median of 2" in profile.sources["flops_per_s"]
    assert profile.flops_per_s == pytest.approx(2e9 / (0.02 + (0.01 + 9) / 2), rel=0.01)


def test_the_radio_and_its_sources_are_the_base_device_s(
    paced: PacedBundle, tmp_path: Path
) -> None:
    profile, base = measure(paced, tmp_path, base="edge_gpu"), load_profile("edge_gpu")
    for key in (
        "transmit_circuit_power_w",
        "amplifier_efficiency",
        "receive_power_w",
        "radio_idle_power_w",
    ):
        assert getattr(profile, key) == getattr(base, key)
        assert profile.sources[key] == f"device edge_gpu: {base.sources[key]}"


def test_power_without_a_counter_is_said_to_be_assumed(paced: PacedBundle, tmp_path: Path) -> None:
    profile, base = measure(paced, tmp_path), load_profile("phone")
    assert profile.compute_power_w == base.compute_power_w
    assert profile.compute_idle_power_w == base.compute_idle_power_w
    for key in ("compute_power_w", "compute_idle_power_w"):
        assert profile.sources[key].startswith("assumption: that of device phone, as no energy")
        assert base.sources[key] in profile.sources[key]


def counter(paced: PacedBundle, folder: Path, monkeypatch: pytest.MonkeyPatch, start: int) -> Path:
    """An energy counter of 30 W that begins anew at 100 J."""
    (folder / "max_energy_range_uj").write_text("100000000\n")
    (folder / "energy_uj").touch()
    real = Path.read_text

    def read_text(path: Path, *args: Any, **kwargs: Any) -> str:
        if path.name == "energy_uj":
            return str((start + round((paced.clock[0] - 100) * 30e6)) % 100_000_000)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", read_text)
    return folder


@pytest.mark.parametrize("start", [0, 99_000_000])
def test_power_is_read_from_the_counter_even_as_it_begins_anew(
    paced: PacedBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: int
) -> None:
    profile = measure(paced, tmp_path, rapl=counter(paced, tmp_path, monkeypatch, start))
    assert profile.compute_power_w == pytest.approx(30)
    assert profile.compute_idle_power_w == pytest.approx(30)
    assert profile.sources["compute_power_w"].startswith("measured by megdt profile on 2026-01-31")


@pytest.mark.parametrize("content", ["5", "", "?"])
def test_a_counter_that_stands_still_or_is_none_measures_nothing(
    paced: PacedBundle, tmp_path: Path, content: str
) -> None:
    (tmp_path / "energy_uj").write_text(content)
    profile = measure(paced, tmp_path, rapl=tmp_path)
    assert profile.sources["compute_power_w"].startswith("assumption: ")


def test_a_processor_s_counter_is_not_taken_for_a_graphics_card(
    paced: PacedBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paced.device = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A card")
    profile = measure(paced, tmp_path, rapl=counter(paced, tmp_path, monkeypatch, 0))
    assert profile.sources["compute_power_w"].startswith("assumption: ")
    assert profile.description.startswith("A card, torch ")


def test_an_unknown_base_is_refused_before_anything_is_measured(paced: PacedBundle) -> None:
    with pytest.raises(ScenarioError, match="known: edge_gpu"):
        measure_profile(paced, name="x", date="today", base="toaster")  # type: ignore[arg-type]
    assert paced.flops == 0


def test_this_machine_can_be_measured(bundle: Bundle, tmp_path: Path) -> None:
    profile = measure(bundle, tmp_path, repeats=1)
    assert 1e8 < profile.flops_per_s < 1e15
