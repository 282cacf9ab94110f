"""Measuring this machine as a device: `megdt profile` writes what `load_profile` reads.

The bundle's own networks are the measure, so the rate is what a generation reaches here. Power is
read from the processor's energy counter where Linux shows it. Radios cannot be measured here, and
are taken from another device.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from megdt.link.energy import load_profile
from megdt.models import FACTOR, LATENT_CHANNELS

if TYPE_CHECKING:
    from megdt.models.bundle import Bundle

RAPL = Path("/sys/class/powercap/intel-rapl:0")
"""Energy counter of the first processor package, Intel's and AMD's alike; often for root alone."""

_IDLE_S = 1.0
_LONGEST_S = 5.0
_SIZE_PX = 512
_STEPS = 2


def measure_profile(
    bundle: Bundle,
    *,
    name: str,
    date: str,
    base: str = "phone",
    repeats: int = 5,
    rapl: Path = RAPL,
) -> str:
    """Measure this machine, in a few seconds.

    Args:
        bundle: Whose decoder and denoiser are run, where it runs them.
        name: What to call the device.
        date: Of today, for the sources.
        base: Device whose radio is taken, and whose power where none can be measured; as
            `load_profile` takes it.
        repeats: Runs, of which the median counts; fewer where they are slow.
        rapl: Folder of the energy counter.

    Returns:
        The text of a file for `load_profile`.

    Raises:
        ScenarioError: If there is no device `base`.
    """
    other = load_profile(base)
    how = f"measured by megdt profile on {date}, {_name_hardware(bundle)}"
    work = _work(bundle)
    work()  # reads the models and warms the caches
    before = bundle.flops
    seconds: list[float] = []

    def run() -> None:
        while len(seconds) < repeats and sum(seconds) < _LONGEST_S:
            started = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - started)

    # The counter is the processor's: of a graphics card it says nothing.
    counter = rapl if bundle.device.type == "cpu" else None
    busy_w, idle_w = _measure_power(run, counter), None
    if busy_w is not None:
        idle_w = _measure_power(lambda: time.sleep(_IDLE_S), counter)
    flops = (bundle.flops - before) / len(seconds)
    median = statistics.median(seconds)
    numbers: dict[str, Any] = {"flops_per_s": _round(flops / median)}
    sources = {key: f"device {other.name}: {text}" for key, text in other.sources.items()}
    sources["core_power_w"] = f"assumption: that of {sources['core_power_w']}"
    sources["flops_per_s"] = (
        f"{how}: {flops / 1e9:.1f}e9 operations of the bundle's decoder and denoiser in "
        f"{median:.3f} s, the median of {len(seconds)}"
    )
    for key, power in (("compute_power_w", busy_w), ("compute_idle_power_w", idle_w)):
        if power is None:
            sources[key] = (
                f"assumption: that of device {other.name}, as no energy counter can be read where "
                f"this was measured; {other.sources[key]}"
            )
        else:
            sources[key] = f"{how}: the whole processor package, whatever else it does"
            numbers[key] = _round(power)
    profile = replace(
        other,
        name=name,
        description=f"{_name_hardware(bundle)}, with the radio of device {other.name}",
        sources=sources,
        precision="fp32",
        **numbers,
    )
    return profile.toml()


def _work(bundle: Bundle) -> Callable[[], None]:
    """A generation's two heavy parts, of about as many operations each."""
    side = _SIZE_PX // FACTOR
    latents = np.zeros((1, LATENT_CHANNELS, side, side), np.float32)
    embeds = bundle.embed(["red poppies at sunset"])

    def run() -> None:
        bundle.decode(latents)
        bundle.denoise(embeds, [0], size_px=256, steps=_STEPS, guidance_scale=2.5)

    return run


def _measure_power(task: Callable[[], None], counter: Path | None) -> float | None:
    """Mean watts while the task runs; None where there is no counter to read."""
    started, before = time.perf_counter(), _read(counter, "energy_uj")
    task()
    seconds, after = time.perf_counter() - started, _read(counter, "energy_uj")
    if before is None or after is None:
        return None
    used = after - before
    if used < 0:  # the counter began anew
        used += _read(counter, "max_energy_range_uj") or 0
    # A counter that stands still, as in some virtual machines, measures nothing.
    return used / 1e6 / seconds if used > 0 else None


def _read(folder: Path | None, name: str) -> int | None:
    try:
        return int((folder / name).read_text()) if folder is not None else None
    except (OSError, ValueError):
        return None


def _name_hardware(bundle: Bundle) -> str:
    import torch

    if bundle.device.type == "cuda":
        chip = torch.cuda.get_device_name(bundle.device)
    else:
        chip = f"{_name_processor()} with {torch.get_num_threads()} threads"
    return f"{chip}, torch {torch.__version__}"


def _name_processor() -> str:
    """As Linux names it, else as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), "") or platform.processor() or platform.machine()


def _round(value: float) -> float:
    return float(f"{value:.3g}")
