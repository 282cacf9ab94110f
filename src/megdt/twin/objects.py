"""Objects of the scene, named by what the replica shows: the list of entities that a twin is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from megdt.models import FACTOR
from megdt.twin.entities import Update
from megdt.twin.replica import Replica
from megdt.twin.store import Store
from megdt.worlds.scene import COLOURS, SKIES, SPECIES, VIEW_EXTENT_M


class Namer(Protocol):
    """Names pictures; the bundle is one."""

    def classify(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.int64]]:
        """Species, colour and sky of pictures of CLASSIFIED_PX, as indices. [batch]"""
        ...


LABELS: Mapping[str, tuple[str, ...]] = {"species": SPECIES, "colour": COLOURS, "sky": SKIES}
"""What the indices stand for that `Namer.classify` gives."""


def name_objects(
    replica: Replica, picture: NDArray[np.uint8], namer: Namer, *, now_s: float, store: Store
) -> int:
    """Keep what stands in each view of the replica that is wholly seen, side by side, as `object/N`.

    Args:
        replica: What is known.
        picture: Of it, square views high. RGB [8 * height, 8 * panorama, 3]
        namer: Takes views of that height.
        now_s: On the twin's clock.
        store: Where they are kept; those whose place is unseen are taken away.

    Returns:
        How many there are.
    """
    size = picture.shape[0]
    columns = size // FACTOR
    there = np.asarray(np.isfinite(replica.seen_s).all(0))
    lefts = [
        left for left in range(0, replica.width - columns + 1, columns)
        if there[left : left + columns].all()
    ]  # fmt: skip
    before = {entity.id: entity.reported for entity in store.entities("object")}
    updates = []
    if lefts:
        views = np.stack([picture[:, left * FACTOR : left * FACTOR + size] for left in lefts])
        named = namer.classify(views)
        for index, left in enumerate(lefts):
            state: dict[str, object] = {
                what: names[int(named[what][index])] for what, names in LABELS.items()
            }
            state["position_m"] = (left / columns + 0.5) * VIEW_EXTENT_M
            id = f"object/{left // columns}"
            if before.pop(id, None) != state:
                updates.append(Update(id=id, kind="object", reported=state))
    gone = [Update(id=id, remove=True) for id in before]
    if updates or gone:
        store.apply([*updates, *gone], now_s=now_s)
    return len(lefts)
