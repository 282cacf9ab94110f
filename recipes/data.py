"""Training pictures: garden views drawn once into a cache, and crops of a folder of photographs.

    python recipes/data.py --views 24000 --photos /usr/share/backgrounds

The cache is a folder of plain .npy files (recipes/cache unless --cache says otherwise). Held-out
views have seeds from HELD_OUT on, and no recipe trains on them.
"""

from __future__ import annotations

import argparse
import multiprocessing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from megdt.worlds.garden import draw_view

CACHE = Path(__file__).parent / "cache"
HELD_OUT = 10_000_000
CROP = 128


def draw_views(seeds: range, path: Path, *, size_px: int = 256) -> None:
    """Draw one 256-pixel view a seed into a memory-mapped array. [views, 256, 256, 3]"""
    shape = (len(seeds), size_px, size_px, 3)
    np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    chunks = np.array_split(np.arange(len(seeds)), max(1, len(seeds) // 250))
    with multiprocessing.get_context("spawn").Pool() as pool:
        pool.starmap(_draw_chunk, [(path, seeds[0], chunk, size_px) for chunk in chunks])


def _draw_chunk(path: Path, first_seed: int, chunk: NDArray[np.int64], size_px: int) -> None:
    views = np.load(path, mmap_mode="r+")
    for index in chunk:
        garden, view = draw_view(first_seed + int(index), size_px=size_px)
        views[index] = garden.render(view)


def draw_close_crops(seeds: range, path: Path) -> None:
    """Crops of views of 512 and 1024 pixels, where the same flower fills more pixels."""
    crops = np.lib.format.open_memmap(path, "w+", np.uint8, (4 * len(seeds), CROP, CROP, 3))
    for index, seed in enumerate(seeds):
        rng = np.random.default_rng(seed)
        size = (512, 1024)[index % 2]
        garden, view = draw_view(seed, size_px=size)
        picture = garden.render(view)
        for part in range(4):
            top, left = rng.integers(size // 4, size - CROP), rng.integers(0, size - CROP)
            crops[4 * index + part] = picture[top : top + CROP, left : left + CROP]


def crop_photographs(folders: list[Path], path: Path, *, crops_each: int = 80) -> None:
    """Random crops of every readable picture, at several scales. [crops, 128, 128, 3]"""
    rng = np.random.default_rng(0)
    crops = []
    for source in sorted(p for folder in folders for p in folder.rglob("*.*")):
        try:
            photograph = Image.open(source).convert("RGB")
        except (UnidentifiedImageError, OSError, ValueError):
            continue
        if min(photograph.size) < 200:
            continue
        for scale in (1.0, 0.5, 0.25):
            small = photograph
            if scale < 1:
                width, height = (round(n * scale) for n in photograph.size)
                if min(width, height) < 200:
                    continue
                small = photograph.resize((width, height), Image.Resampling.LANCZOS)
            pixels = np.asarray(small)
            for _ in range(crops_each // 3):
                top = rng.integers(0, pixels.shape[0] - CROP + 1)
                left = rng.integers(0, pixels.shape[1] - CROP + 1)
                crops.append(pixels[top : top + CROP, left : left + CROP])
    if not crops:
        raise SystemExit(f"no picture of 200 pixels or more in {', '.join(map(str, folders))}")
    np.save(path, np.stack(crops))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--views", type=int, default=24_000)
    parser.add_argument("--held-out", type=int, default=2_000)
    parser.add_argument("--photos", type=Path, nargs="+", required=True, metavar="FOLDER")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    draw_close_crops(range(1_000_000, 1_001_500), arguments.cache / "close_crops.npy")
    crop_photographs(arguments.photos, arguments.cache / "photo_crops.npy")
    held_out = range(HELD_OUT, HELD_OUT + arguments.held_out)
    draw_views(held_out, arguments.cache / "held_out_views.npy")
    draw_views(range(arguments.views), arguments.cache / "views.npy")


if __name__ == "__main__":
    main()
