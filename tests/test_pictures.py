from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from megdt.errors import OutputError, RequestError
from megdt.pictures import (
    check_writable,
    draw_comparison,
    draw_sheet,
    free_name,
    name_picture,
    read_recall,
    save_picture,
    save_video,
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


FRAMES = [np.full((32, 32, 3), 60 * n, np.uint8) for n in range(4)]


@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_a_video_plays_all_its_frames_at_its_speed(tmp_path: Path, name: str) -> None:
    save_video(tmp_path / name, FRAMES, 8)
    with Image.open(tmp_path / name) as file:
        assert file.n_frames == 4  # type: ignore[attr-defined]
        for number, frame in enumerate(FRAMES):
            file.seek(number)
            shown = np.asarray(file.convert("RGB")).astype(int)
            assert np.abs(shown - frame).max() <= (0 if name == "a.png" else 3)
            assert file.info["duration"] == 125


def test_a_video_of_another_kind_or_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"a.gif ends in .gif, a video is written as .png or"):
        save_video(tmp_path / "a.gif", FRAMES, 8)
    with pytest.raises(RequestError, match="a video has no frame"):
        save_video(tmp_path / "a.png", [], 8)
    with pytest.raises(OutputError, match="cannot write"):
        save_video(tmp_path / "none" / "a.png", FRAMES, 8)


def test_a_contact_sheet_has_every_frame() -> None:
    sheet = draw_sheet(FRAMES, ["1", "2", "3", "4"], columns=3)
    colours = {int(c) for c in np.unique(sheet[20:100, 20::204, 0])}
    assert colours >= {0, 60, 120}
    assert (sheet[260:400, 20:150] == 180).all()
