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
        times_s: When each value begins to hold; rising, the first one is 0.
        snr_db: As many values.
        length_s: Where the trace begins again.
    """

    times_s: tuple[float, ...]
    snr_db: tuple[float, ...]
    length_s: float

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
        self.times_s = np.array(channel.times_s)

    def slot(self, index: int, blocks: int) -> tuple[Gains, float]:
        del blocks
        moment_s = (index + 0.5) * self.grid.slot_s % self.channel.length_s
        place = int(np.searchsorted(self.times_s, moment_s, side="right")) - 1
        return np.ones((1, 1), np.complex64), 10 ** (-self.channel.snr_db[place] / 10)


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
    except UnicodeDecodeError as error:
        raise LinkError(
            f"trace {path} is not text; give a CSV of time_s,snr_db or a Mahimahi trace"
        ) from error
    except (OSError, ValueError) as error:  # ValueError for a path that no file can have
        reason = getattr(error, "strerror", None) or error
        raise LinkError(f"cannot read trace {path} ({reason}); check the path") from error
    rows = [(n, line.strip()) for n, line in enumerate(lines, 1)]
    rows = [(n, line) for n, line in rows if line and not line.startswith("#")]
    if rows and all(field.strip()[:1].isalpha() for field in rows[0][1].split(",")):
        rows = rows[1:]  # a header: names and no numbers
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


_LONGEST_MS = 100_000_000
"""A day of milliseconds, and some."""


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
    # The last sample holds as long as the one before it did.
    last_s = times[-1] - times[-2] if len(times) > 1 else 1.0
    length_s = times[-1] - times[0] + last_s
    if not length_s < 1e9:
        raise LinkError(f"trace {path} is {length_s:g} s long; is time in seconds?")
    return TraceChannel(
        times_s=tuple(t - times[0] for t in times), snr_db=tuple(values), length_s=length_s
    )


def _mahimahi_trace(path: Path, rows: list[tuple[int, str]], uses_per_s: float) -> TraceChannel:
    times: list[int] = []
    for number, line in rows:
        (value,) = _numbers(path, number, line, 1)
        if not 0 <= value <= _LONGEST_MS or value != int(value):
            raise LinkError(
                f"trace {path} line {number} is {line!r}, expected a whole number of "
                f"milliseconds up to {_LONGEST_MS}; correct it"
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
    return TraceChannel(
        times_s=tuple(np.arange(len(windows)) * (step_ms / 1000)),
        snr_db=tuple((10 * np.log10(snr)).tolist()),
        length_s=max(times[-1], 1) / 1000,
    )
