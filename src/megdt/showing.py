"""What a task has shown: as tables, as JSON, and as files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from megdt.mechanisms.video import play, screen
from megdt.models import FACTOR
from megdt.pictures import check_writable, draw_rows, draw_sheet, save_picture, save_video
from megdt.report import describe_link, make_table
from megdt.scenario import Scenario
from megdt.tasks import TASKS, Done, Shown, is_video


def print_tasks() -> None:
    """Names, what each makes of what, and which mechanisms suit it, the most suitable first."""
    console = Console()
    for task in TASKS.values():
        console.print(f"[bold]{task.name}[/bold]: {task.about}")
        table = make_table("", "by", "sends")
        table.show_header = False
        for mechanism, sends in task.suits.items():
            table.add_row("", mechanism, sends)
        console.print(table)


def name_files(scenario: Scenario, path: Path) -> dict[str, Path]:
    """Where each stage's picture goes: the last one to the path, others beside it; of a video, all
    frames to the path, and a sheet of them beside it.

    Raises:
        OutputError: If one of them cannot be written.
    """
    if is_video(scenario):
        files = {"video": path, "sheet": path.with_name(f"{path.stem}-sheet.png")}
        check_writable(path, video=True)
        check_writable(files["sheet"])
        return files
    stages = [
        stage.name
        for stage in scenario.mechanism.stages
        if stage.makes == "image" and stage.inputs
        and (stage.side.is_ue or stage is scenario.mechanism.stages[-1])
    ]  # fmt: skip
    sides = {stage.name: str(stage.side).lower() for stage in scenario.mechanism.stages}
    files = {
        name: path.with_name(f"{path.stem}-{sides[name] if scenario.for_many else name}.png")
        for name in stages
    }
    if not scenario.for_many and stages:
        files[stages[-1]] = path
    for target in {*files.values(), *((path,) if files else ())}:
        check_writable(target)
    return files


def save_shown(done: Done, path: Path, files: Mapping[str, Path]) -> dict[str, Path]:
    """Write what was shown; of many UEs also one sheet of all, under the path itself.

    Returns:
        The files that were written, by stage.
    """
    if is_video(done.scenario):
        return _save_video(done, files)
    written = {}
    for shown in done.shown:
        if shown.stage in files:
            save_picture(files[shown.stage], shown.feature.values)
            written[shown.stage] = files[shown.stage]
    if done.scenario.for_many and written:
        save_picture(path, draw_rows(done.scenario.mechanism.name, _rows(done)))
        written["all"] = path
    return written


def _save_video(done: Done, files: Mapping[str, Path]) -> dict[str, Path]:
    if done.result.image is None:
        return {}
    frames, speed = screen(done.result), done.scenario.video.frames_per_s
    played = play(done.result, frames_per_s=speed)
    notes = [
        f"{_ms(at)}{'' if came else ', not there'}"
        for at, came in zip(played.shown_s, played.came, strict=True)
    ]
    save_video(files["video"], frames, speed)
    save_picture(files["sheet"], draw_sheet(frames, notes))
    return dict(files)


def _rows(done: Done) -> list[tuple[NDArray[np.uint8], int, str]]:
    """What each UE shows, where it lies on the panorama; once, where all show all of it."""
    panorama, rows = done.scenario.panorama, []
    for shown in sorted(done.shown, key=lambda s: panorama.by_side[s.side].column):
        image = shown.feature.values
        all_of_it = image.shape[1] == panorama.width * FACTOR
        left = 0 if all_of_it else panorama.shown(panorama.by_side[shown.side]).start * FACTOR
        rows.append((image, left, f"{shown.side} {_note(shown)}"))
    return rows[:1] if done.scenario.mechanism.name == "coordinated" else rows


def as_json(done: Done, files: Mapping[str, Path]) -> dict[str, Any]:
    """One JSON object of what was shown, and what it took."""
    ledger = done.result.ledger
    return {
        "task": done.task.name,
        "mechanism": done.scenario.plan.mechanism,
        "outcome": done.outcome,
        "sent": len(ledger.crossings),
        "came": done.came,
        "shown": [
            {
                "stage": s.stage,
                "side": s.side,
                "at_s": s.at_s,
                "psnr_db": _psnr_db(s),
                "text": s.feature.values if s.feature.kind == "text" else None,
                "file": str(files[s.stage]) if s.stage in files else None,
            }
            for s in done.shown
        ],
        "copies": _copies(done),
        "playback": _playback(done),
        "bits": ledger.bits,
        "channel_uses": ledger.channel_uses,
        "duration_s": ledger.duration_s,
        "energy_j": ledger.energy_j,
        "energy_by_side_j": {side: ledger.energy_of(side) for side in ledger.waiting_j},
        "scenario": done.scenario.table(),
    }


def _copies(done: Done) -> str | None:
    """Whether copies of the gate hold the same; None where there are none."""
    for feature in done.result.features.values():
        if feature.kind == "agreement":
            return str(feature.values)
    return None


def _playback(done: Done) -> dict[str, Any] | None:
    """How a video plays while it arrives; None for all else."""
    if not is_video(done.scenario) or done.result.image is None:
        return None
    played = play(done.result, frames_per_s=done.scenario.video.frames_per_s)
    found = {**asdict(played), "lost": played.lost}
    # None of the frames came: JSON has no infinity.
    return {k: None if v == math.inf else v for k, v in found.items()}


def print_done(done: Done, files: Mapping[str, Path]) -> None:
    """What crossed, what was shown and when, and the files."""
    console, ledger = Console(), done.result.ledger
    sent = make_table("sent", "by", "codec", "bits", "uses", "from", "to")
    for c in sorted(ledger.crossings, key=lambda c: c.start_s):
        sent.add_row(
            f"{c.kind} to {c.to_side}", c.source, done.scenario.plan.codecs[c.kind],
            f"{c.bits:,}", f"{c.channel_uses:,}" + f" by {c.among}" * (c.among > 1), _ms(c.start_s),
            _ms(c.end_s) if c.outcome == "delivered" else c.outcome,
        )  # fmt: skip
    console.print(sent)
    console.print()
    table = make_table("shown", "side", "at", "PSNR")
    for shown in done.shown:
        quality = _psnr_db(shown)
        table.add_row(
            shown.stage, shown.side, _ms(shown.at_s), "" if quality is None else f"{quality:.1f} dB"
        )
    console.print(table)
    print(
        f"\n{describe_link(done.scenario)}: {done.outcome}, {done.came} of "
        f"{len(ledger.crossings)} features came; "
        f"{ledger.duration_s:.2f} s, {ledger.energy_j:.2f} J"
    )
    played = _playback(done)
    if played is not None:
        print(
            "no frame came"
            if played["first_s"] is None
            else f"first frame after {_ms(played['first_s'])}; plays without a stall if begun at {_ms(played['playable_s'])}, "
            f"{played['waits']} stalls of {_ms(played['stalls_s'])} in all if begun at once; "
            f"{played['lost']} of {len(played['came'])} frames lost"
        )
    if (copies := _copies(done)) is not None:
        print(f"copies of the gate: {copies}")
    for shown in done.shown:
        if shown.feature.kind == "text":
            print(shown.feature.values)
    # Plain print: a path must not be wrapped or coloured.
    for stage, path in files.items():
        print(f"{stage}: {path}")


def _note(shown: Shown) -> str:
    quality = _psnr_db(shown)
    return f"after {_ms(shown.at_s)}" + ("" if quality is None else f", PSNR {quality:.1f} dB")


def _psnr_db(shown: Shown) -> float | None:
    """To what is there; None where it is meant to be something else, or is exactly that."""
    from megdt.models.quality import psnr_db

    if shown.truth is None or shown.feature.kind != "image":
        return None
    found = psnr_db(shown.feature.values, shown.truth)
    return found if np.isfinite(found) else None


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
