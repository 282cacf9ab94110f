"""What no UE has seen, as a guess that stays one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from megdt.errors import TwinError
from megdt.records import Feature, Side
from megdt.twin.imagining import describe, guessed, imagine
from megdt.twin.replica import Replica
from megdt.twin.store import Store, open_store
from megdt.twin.validation import assess_replica


class Painter:
    """Fills what was not seen with a number, and names views by their mean."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.embeds = np.zeros((0, 1), np.float32)

    def embed(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        self.asked = list(prompts)
        return np.ones((len(prompts), 1), np.float32)

    def outpaint(
        self,
        latents: NDArray[np.float32],
        seen: NDArray[np.bool_],
        prompt_embeds: NDArray[np.float32],
        rng_seed: int,
        *,
        steps: int,
        guidance_scale: float,
        repeats: int = 1,
    ) -> NDArray[np.float32]:
        del steps, guidance_scale, repeats
        self.embeds = prompt_embeds
        return np.where(seen, latents, np.float32(rng_seed))

    def decode(self, latents: NDArray[np.float32]) -> NDArray[np.uint8]:
        level = latents.mean((1, 2, 3))[:, None, None, None]
        shape = (len(latents), 8 * latents.shape[2], 8 * latents.shape[3], 3)
        return np.broadcast_to(level, shape).astype(np.uint8)

    def classify(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.int64]]:
        named = images.mean((1, 2, 3)).astype(np.int64)
        return {"species": named, "colour": named, "sky": named}


def look(replica: Replica, store: Store, column: int, number: float) -> None:
    seen = Feature(kind="observation", values=np.full((4, 32, 32), number, np.float32))
    columns = range(column, column + 32)
    replica.refresh(seen, columns, source=Side.ue(1), now_s=10, store=store)


def test_a_guess_is_marked_as_one_everywhere() -> None:
    with open_store() as store:
        replica = Replica.blank(32, 96)
        look(replica, store, 0, 1.0)
        before = store.revision
        found = imagine(replica, Painter(), rng_seed=7)
        assert (found.values[:, :, :32] == 1).all()
        assert (found.values[:, :, 32:] == 7).all()
        # The twin goes on as if it had not been drawn.
        assert store.revision == before
        assert (replica.values[:, :, 32:] == 0).all()
        told = found.recall(range(96), now_s=20)
        assert told.confidence is not None
        assert np.array_equal(told.confidence[0] > 0, np.arange(96) < 32)
        assert np.array_equal(guessed(found)[0], np.arange(8 * 96) >= 8 * 32)
        assert assess_replica(found, now_s=20).verdict == "stale"


def test_what_is_seen_later_takes_the_place_of_a_guess() -> None:
    with open_store() as store:
        replica = Replica.blank(32, 64)
        look(replica, store, 0, 1.0)
        found = imagine(replica, Painter(), rng_seed=7)
        look(found, store, 32, 2.0)
        assert (found.values[:, :, 32:] == 2).all()
        assert not guessed(found).any()


def test_each_window_is_told_what_was_seen_nearest_to_it() -> None:
    painter = Painter()
    with open_store() as store:
        replica = Replica.blank(32, 128)
        look(replica, store, 0, 1.0)
        look(replica, store, 96, 3.0)
        words = describe(replica, painter)
    assert len(words) == 7
    assert len(set(words[:4])) == 1
    assert len(set(words[4:])) == 1
    # Indices 1 and 3 of species and sky.
    assert "tulip" in words[0]
    assert "pop" in words[-1].lower()


def test_nothing_seen_nothing_said() -> None:
    painter = Painter()
    replica = Replica.blank(32, 64)
    assert describe(replica, painter) == ["", "", ""]
    imagine(replica, painter, rng_seed=1, prompts=["", "a meadow", ""])
    assert painter.embeds[:, 0].tolist() == [0, 1, 0]


def test_replicas_of_another_size_are_refused() -> None:
    for replica in (Replica.blank(16, 64), Replica.blank(32, 24)):
        with pytest.raises(TwinError, match="take a replica of 256 pixels"):
            imagine(replica, Painter(), rng_seed=0)
