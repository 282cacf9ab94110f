"""Channels that were recorded: a CSV of time and SNR, or a Mahimahi trace."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from megdt.errors import LinkError
from megdt.link.channels import MAX_SNR_DB, MIN_SNR_DB, Fading, Gains
from megdt.link.grid import ChannelStatistics, Grid


@dataclass(frozen=True, kw_only=True)
class TraceChannel:
    """A flat channel whose SNR was recorded.

    Args:
        snr_db: One value a step.
        step_s: Length of a step. After the last one the trace begins again.
    """

    snr_db: tuple[float, ...]
    step_s: float

    @property
    def statistics(self) -> ChannelStatistics:
        """Flat, and still within a slot."""
        return ChannelStatistics()

    def begin(self, grid: Grid, rng: np.random.Generator) -> Fading:
        """Nothing is drawn: the trace says all."""
        del rng
        return _TraceFading(self, grid)


class _TraceFading:
    def __init__(self, channel: TraceChannel, grid: Grid) -> None:
        self.channel, self.grid = channel, grid

    def slot(self, index: int, blocks: int) -> tuple[Gains, float]:
        del blocks
        step = int((index + 0.5) * self.grid.slot_s / self.channel.step_s)
        snr_db = self.channel.snr_db[step % len(self.channel.snr_db)]
        return np.ones((1, 1), np.complex64), 10 ** (-snr_db / 10)


def read_trace(path: Path, *, uses_per_s: float) -> TraceChannel:
    """Read a CSV of time and SNR, or a Mahimahi trace.

    A CSV has a line `time_s,snr_db` a sample, times rising, with or without a header; each SNR
    holds until the next. A Mahimahi trace has a whole number of milliseconds a line, each a chance
    to deliver 1500 bytes; it becomes the SNR whose capacity is the traced rate over 100 ms, so
    that `coding = "ideal"` delivers what was recorded.

    Args:
        path: The file; what its first line with a number looks like tells the format.
        uses_per_s: Complex channel uses a second of the carrier, for Mahimahi.

    Raises:
        LinkError: If the file cannot be read, is empty, not sorted or not numeric; says which line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise LinkError(f"cannot read trace {path} ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise LinkError(
            f"trace {path} is not text; give a CSV of time_s,snr_db or a Mahimahi trace"
        ) from error
    rows = [(n, line.strip()) for n, line in enumerate(lines, 1)]
    rows = [(n, line) for n, line in rows if line and not line.startswith("#")]
    if rows and "," in rows[0][1] and any(c.isalpha() for c in rows[0][1].replace("nan", "")):
        rows = rows[1:]  # a header
    if not rows:
        raise LinkError(f"trace {path} has no samples; a line is time_s,snr_db or milliseconds")
    if "," in rows[0][1]:
        return _csv_trace(path, rows)
    return _mahimahi_trace(path, rows, uses_per_s)


def _numbers(path: Path, number: int, line: str, count: int) -> list[float]:
    try:
        found = [float(text) for text in line.split(",")]
    except ValueError:
        found = []
    if len(found) != count or not all(math.isfinite(value) for value in found):
        wanted = "time_s,snr_db" if count == 2 else "a whole number of milliseconds"
        raise LinkError(f"trace {path} line {number} is {line!r}, expected {wanted}; correct it")
    return found


_TRACE_STEP_S = 1e-3


def _csv_trace(path: Path, rows: list[tuple[int, str]]) -> TraceChannel:
    times: list[float] = []
    values: list[float] = []
    for number, line in rows:
        time_s, snr_db = _numbers(path, number, line, 2)
        if times and time_s <= times[-1]:
            raise LinkError(
                f"trace {path} line {number} has time {time_s:g} after {times[-1]:g}; "
                "sort it by time"
            )
        if not MIN_SNR_DB <= snr_db <= MAX_SNR_DB:
            raise LinkError(
                f"trace {path} line {number} has SNR {snr_db:g} dB, this link takes "
                f"{MIN_SNR_DB:g} to {MAX_SNR_DB:g}; correct it"
            )
        times.append(time_s)
        values.append(snr_db)
    if len(times) == 1:
        return TraceChannel(snr_db=(values[0],), step_s=_TRACE_STEP_S)
    # The last sample holds as long as the one before it did.
    length = times[-1] - times[0] + (times[-1] - times[-2])
    count = round(length / _TRACE_STEP_S)
    if count > 10_000_000:
        raise LinkError(
            f"trace {path} is {length:g} s long, the longest is 10000 s; is time in seconds?"
        )
    moments = times[0] + np.arange(max(count, 1)) * _TRACE_STEP_S
    places = np.searchsorted(times, moments + 1e-9, side="right") - 1
    return TraceChannel(snr_db=tuple(np.array(values)[places].tolist()), step_s=_TRACE_STEP_S)


def _mahimahi_trace(path: Path, rows: list[tuple[int, str]], uses_per_s: float) -> TraceChannel:
    times: list[int] = []
    for number, line in rows:
        (value,) = _numbers(path, number, line, 1)
        if value != int(value) or value < 0:
            raise LinkError(
                f"trace {path} line {number} is {line!r}, expected a whole number of "
                "milliseconds; correct it"
            )
        if times and value < times[-1]:
            raise LinkError(
                f"trace {path} line {number} has {int(value)} ms after {times[-1]} ms; "
                "sort it by time"
            )
        times.append(int(value))
    step_ms = 100
    windows = np.bincount([max(t - 1, 0) // step_ms for t in times])
    last_ms = max(times[-1], 1) - (len(windows) - 1) * step_ms
    lengths_s = np.full(len(windows), step_ms / 1000.0)
    lengths_s[-1] = last_ms / 1000  # the trace repeats from its last line on
    bits_per_use = windows * 1500 * 8 / lengths_s / uses_per_s
    snr = np.maximum(2.0 ** np.minimum(bits_per_use, 19.9) - 1, 10 ** (MIN_SNR_DB / 10))
    snr_db = np.repeat(10 * np.log10(snr), [step_ms] * (len(windows) - 1) + [last_ms])
    return TraceChannel(snr_db=tuple(snr_db.tolist()), step_s=1e-3)
