from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from megdt.errors import OutputError
from megdt.pictures import (
    check_writable,
    draw_comparison,
    free_name,
    name_picture,
    read_recall,
    save_picture,
)

PICTURE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


def test_recall_data_and_pixels_come_back(tmp_path: Path) -> None:
    data = {"prompt": "Gänseblümchen", "numbers": [1, 2.5]}
    save_picture(tmp_path / "a.png", PICTURE, data)
    pixels, found = read_recall(tmp_path / "a.png")
    assert (pixels == PICTURE).all()
    assert found == data


def test_nothing_is_left_behind_when_writing_fails(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        save_picture(tmp_path / "a.png", PICTURE, {})
    assert list(tmp_path.iterdir()) == [tmp_path / "a.png"]


def test_an_output_that_cannot_be_is_refused_beforehand(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist; make it first"):
        check_writable(tmp_path / "none" / "a.png")
    with pytest.raises(OutputError, match="is a folder"):
        check_writable(tmp_path)
    with pytest.raises(OutputError, match=r"does not end in .png"):
        check_writable(tmp_path / "a.jpg")
    check_writable(tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_a_picture_of_another_make_is_refused(tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "plain.png")
    with pytest.raises(OutputError, match="has no recall data"):
        read_recall(tmp_path / "plain.png")
    (tmp_path / "text.png").write_text("rose")
    with pytest.raises(OutputError, match="not a PNG picture"):
        read_recall(tmp_path / "text.png")
    with pytest.raises(OutputError, match="No such file"):
        read_recall(tmp_path / "none.png")


def test_a_picture_is_named_after_its_prompt_and_never_over_another(tmp_path: Path) -> None:
    first = name_picture("Red Poppies, at sunset!", tmp_path)
    assert first.name == "red-poppies-at-sunset.png"
    first.touch()
    assert name_picture("red poppies at sunset", tmp_path).name == "red-poppies-at-sunset-2.png"
    assert free_name(first).name == "red-poppies-at-sunset-2.png"
    assert name_picture("???", tmp_path).name == "picture.png"


def test_a_comparison_shows_every_panel() -> None:
    black, white = np.zeros((256, 256, 3), np.uint8), np.full((256, 256, 3), 255, np.uint8)
    figure = draw_comparison("t" * 400, ((black, "one", ("a", "b")), (white, "two", ("c",))))
    assert figure.shape[1] == 24 + 2 * (256 + 24)
    assert (figure[200, 24 : 24 + 256] == 0).all()
