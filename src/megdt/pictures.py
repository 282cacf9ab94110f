"""Pictures as files: PNG with everything inside that it takes to make the picture again, videos as
animated pictures, the labelled comparison figure, and the contact sheet of a video.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from megdt.errors import OutputError, RequestError

RECALL_KEY = "megdt"


def check_writable(path: Path, *, video: bool = False) -> None:
    """See that a file can be made there, before anything long is started.

    Args:
        path: Of a picture.
        video: Or of a video, which may end in .webp too.

    Raises:
        OutputError: If the folder does not exist or cannot be written, or the path is a folder or of
            another format.
    """
    folder = path.parent
    try:
        if not folder.is_dir():
            raise OutputError(
                f"output folder {folder} does not exist; make it first: mkdir -p {folder}"
            )
        if path.is_dir():
            raise OutputError(
                f"{path} is a folder, expected a file name; take {path / 'picture.png'}"
            )
        # The only sure test is to write: permission bits say nothing on read-only disks.
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=".megdt-")
        os.close(descriptor)
        Path(name).unlink()
    except OSError as error:
        raise OutputError(
            f"cannot write {path} ({error.strerror}); choose another place with --out"
        ) from error
    if video and path.suffix.lower() not in ANIMATED:
        raise OutputError(
            f"{path.name} ends in neither {' nor '.join(ANIMATED)}, as which videos are written; "
            f"name it {path.stem}.webp"
        )
    if not video and path.suffix.lower() != ".png":
        raise OutputError(
            f"{path.name} does not end in .png, and only PNG keeps the recall data; "
            f"name it {path.stem}.png"
        )


def name_picture(prompt: str, folder: Path) -> Path:
    """A free file name after the prompt."""
    words = "-".join(re.findall(r"[a-z0-9]+", prompt.lower()))[:60].strip("-") or "picture"
    return free_name(folder / f"{words}.png")


def free_name(wanted: Path) -> Path:
    """The name, or with a number where there is such a file already."""
    path, number = wanted, 2
    while path.exists():
        path, number = wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}"), number + 1
    return path


def save_picture(
    path: Path, image: NDArray[np.uint8], recall: Mapping[str, Any] | None = None
) -> None:
    """Write a PNG, with recall data in it if there is any, whole or not at all.

    Args:
        path: Where to.
        image: RGB. [height, width, 3]
        recall: JSON values that `read_recall` gives back.

    Raises:
        OutputError: If the file cannot be written.
    """
    info = PngInfo()
    if recall is not None:
        info.add_itxt(RECALL_KEY, json.dumps(recall, ensure_ascii=False))
    info.add_text("Software", "megdt")
    _write_whole(path, lambda file: Image.fromarray(image).save(file, "PNG", pnginfo=info))


ANIMATED = {".png": "PNG", ".webp": "WEBP"}
"""Formats of videos by the end of their names."""


def save_video(path: Path, frames: Sequence[NDArray[np.uint8]], frames_per_s: float) -> None:
    """Write a video as an animated picture that plays over and over, whole or not at all.

    Args:
        path: Where to; NAME.png keeps every pixel, NAME.webp is small.
        frames: RGB, all of one size. Each [height, width, 3]
        frames_per_s: How fast it plays.

    Raises:
        RequestError: If there is no frame, or the name ends in neither .png nor .webp.
        OutputError: If the file cannot be written.
    """
    if not frames:
        raise RequestError("a video has no frame; give it at least one")
    kind = ANIMATED.get(path.suffix.lower())
    if kind is None:
        raise RequestError(
            f"{path.name} ends in {path.suffix or 'nothing'}, a video is written as "
            f"{' or '.join(ANIMATED)}; name it {path.stem}.webp"
        )
    first, *others = (Image.fromarray(frame) for frame in frames)
    settings: dict[str, Any] = {"quality": 90, "method": 4} if kind == "WEBP" else {}
    milliseconds = max(1, round(1000 / frames_per_s))
    _write_whole(
        path,
        lambda file: first.save(
            file, kind, save_all=True, append_images=others, duration=milliseconds, loop=0,
            **settings,
        ),
    )  # fmt: skip


def _write_whole(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".megdt-", suffix=path.suffix)
        try:
            with os.fdopen(descriptor, "wb") as file:
                write(file)
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink()
            raise
    except OSError as error:
        raise OutputError(
            f"cannot write {path} ({error.strerror or error}); choose another place with --out"
        ) from error


def read_picture(path: Path, size_px: int) -> NDArray[np.uint8]:
    """The middle square of a picture, scaled. [size_px, size_px, 3]

    Raises:
        OutputError: If the file is not a picture that Pillow reads.
    """
    try:
        with Image.open(path) as file:
            upright = ImageOps.exif_transpose(file).convert("RGB")
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or "not a picture"
        raise OutputError(
            f"cannot read {path} ({reason}); give a PNG, JPEG, WebP or another picture"
        ) from error
    square = ImageOps.fit(upright, (size_px, size_px), Image.Resampling.LANCZOS)
    return np.asarray(square)


def read_recall(path: Path) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """Read a picture and the recall data in it.

    Raises:
        OutputError: If the file is not a PNG that megdt wrote.
    """
    try:
        with Image.open(path, formats=("PNG",)) as file:
            pixels, text = np.asarray(file.convert("RGB")), getattr(file, "text", {})
    except (OSError, UnidentifiedImageError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a PNG picture"
        raise OutputError(
            f"cannot read {path} ({reason}); give a picture that megdt generate wrote"
        ) from error
    try:
        recall = json.loads(text[RECALL_KEY])
    except (KeyError, ValueError) as error:
        raise OutputError(
            f"{path} has no recall data; only pictures that megdt generate wrote have it, and editors drop it"
        ) from error
    if not isinstance(recall, dict):
        raise OutputError(
            f"{path} has damaged recall data: expected an object; generate the picture again"
        )
    return pixels, recall


def draw_rows(title: str, rows: Sequence[tuple[NDArray[np.uint8], int, str]]) -> NDArray[np.uint8]:
    """Views of a panorama one under the other, each where it belongs, with a note over it.

    Args:
        title: Over all of them.
        rows: (picture [height, width, 3], its left edge on the panorama in pixels, note).

    Returns:
        RGB. [height, width, 3]
    """
    gap, line = 16, 26
    heading, small = (ImageFont.load_default(size) for size in (19, 15))
    width = max(left + picture.shape[1] for picture, left, _ in rows)
    height = sum(picture.shape[0] + line + gap for picture, _, _ in rows)
    figure = Image.new("RGB", (width + 2 * gap, height + gap + 32), "white")
    pen = ImageDraw.Draw(figure)
    pen.text((gap, gap), title, fill="#111111", font=heading)
    top = gap + 32
    for picture, left, note in rows:
        pen.text((gap + left, top), note, fill="#555555", font=small)
        figure.paste(Image.fromarray(picture), (gap + left, top + line))
        top += picture.shape[0] + line + gap
    return np.asarray(figure)


def draw_comparison(
    title: str, panels: Sequence[tuple[NDArray[np.uint8], str, Sequence[str]]]
) -> NDArray[np.uint8]:
    """Pictures side by side with a heading and notes under each.

    Args:
        title: Over the whole figure; cut short where it is too long.
        panels: (picture [size, size, 3], heading, notes).

    Returns:
        RGB. [height, width, 3]
    """
    side, gap = max(256, min(512, panels[0][0].shape[0])), 24
    title = " ".join(title.split())
    heading, small = (ImageFont.load_default(size) for size in (19, 15))
    lines = max(len(notes) for _, _, notes in panels)
    width = gap + len(panels) * (side + gap)
    height = gap + 44 + side + 40 + 21 * lines + gap
    figure = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(figure)
    while pen.textlength(title, font=heading) > width - 2 * gap:
        title = title[:-2].rstrip() + "…"
    pen.text((gap, gap), title, fill="#111111", font=heading)
    for index, (picture, name, notes) in enumerate(panels):
        left, top = gap + index * (side + gap), gap + 44
        shown = Image.fromarray(picture)
        if shown.size != (side, side):
            shown = shown.resize((side, side), Image.Resampling.LANCZOS)
        figure.paste(shown, (left, top))
        pen.text((left, top + side + 10), name, fill="#111111", font=heading)
        for row, note in enumerate(notes):
            pen.text((left, top + side + 38 + 21 * row), note, fill="#555555", font=small)
    return np.asarray(figure)


def draw_sheet(
    frames: Sequence[NDArray[np.uint8]], notes: Sequence[str], *, columns: int = 4
) -> NDArray[np.uint8]:
    """The contact sheet of a video: its frames row by row, with a note under each.

    Args:
        frames: RGB, all of one size. Each [height, width, 3]
        notes: One a frame.
        columns: Frames in a row.

    Returns:
        RGB. [height, width, 3]
    """
    side, gap, line = 192, 12, 24
    small = ImageFont.load_default(14)
    rows = -(-len(frames) // columns)
    size = (gap + min(columns, len(frames)) * (side + gap), gap + rows * (side + line + gap))
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for number, (frame, note) in enumerate(zip(frames, notes, strict=True)):
        row, column = divmod(number, columns)
        left, top = gap + column * (side + gap), gap + row * (side + line + gap)
        shown = Image.fromarray(frame).resize((side, side), Image.Resampling.LANCZOS)
        sheet.paste(shown, (left, top))
        pen.text((left, top + side + 4), note, fill="#555555", font=small)
    return np.asarray(sheet)
