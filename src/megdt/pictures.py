"""Pictures as files: PNG with everything inside that it takes to make the picture again, and the
labelled comparison figure.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from megdt.errors import OutputError

RECALL_KEY = "megdt"


def check_writable(path: Path) -> None:
    """See that a file can be made there, before anything long is started.

    Raises:
        OutputError: If the folder does not exist or cannot be written, or the path is a folder.
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
    if path.suffix.lower() != ".png":
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
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".megdt-", suffix=".png")
        try:
            with os.fdopen(descriptor, "wb") as file:
                Image.fromarray(image).save(file, "PNG", pnginfo=info)
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
