"""What the parts about the replica share: cameras that see all of a garden, what comes of their views
at the ES, and how far that is from the world.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt.mechanisms.panorama import EDGE_COLUMNS, VIEW_COLUMNS, Camera, Panorama
from megdt.models import FACTOR, LATENT_CHANNELS
from megdt.models.bundle import Bundle
from megdt.models.quality import PerceptualReference
from megdt.records import Delivery, Feature, Packet, Side
from megdt.twin.replica import Replica
from megdt.twin.store import open_store
from megdt.twin.validation import entity_f1
from megdt.worlds.garden import Garden
from megdt.worlds.scene import VIEW_EXTENT_M

VIEW_PX = VIEW_COLUMNS * FACTOR
SHAPE = (LATENT_CHANNELS, VIEW_COLUMNS, VIEW_COLUMNS)
DAY_S = 86_400.0
RESAMPLES = 2000

Image = NDArray[np.uint8]
Latent = NDArray[np.float32]


class World:
    """A garden as it is at one time.

    Args:
        garden: As it stands.
        bundle: Names what is seen.
        judged_px: Side of what is judged perceptually of each piece; all of it, but for a quick run.
    """

    def __init__(self, garden: Garden, bundle: Bundle, judged_px: int) -> None:
        self.garden, self.bundle, self.judged_px = garden, bundle, judged_px
        self.picture = garden.panorama(VIEW_PX)
        self._reference = PerceptualReference(pieces(self.picture, judged_px))

    def judge(self, picture: Image) -> dict[str, float]:
        """How far a replica's picture is from it."""
        off = (picture.astype(float) - self.picture) ** 2
        return {
            "perceptual": float(self._reference.distance(pieces(picture, self.judged_px)).mean()),
            "entity_f1": entity_f1(picture, self.garden, self.bundle),
            "error": float(np.sqrt(off.mean())),
        }


def columns_of(length_m: float) -> int:
    """Of a garden's panorama."""
    return round(length_m * VIEW_COLUMNS / VIEW_EXTENT_M)


def cameras_along(length_m: float, count: int) -> Panorama:
    """Cameras evenly along a garden; the edges of each view are within a neighbour's."""
    width = columns_of(length_m)
    lefts = np.linspace(0, width - VIEW_COLUMNS, count).round().astype(int)
    if count > 1 and np.diff(lefts).max() > VIEW_COLUMNS - 2 * EDGE_COLUMNS:
        raise ValueError(f"{count} cameras see {length_m} m with gaps; take more")
    cameras = tuple(Camera(side=Side.ue(n + 1), column=int(c)) for n, c in enumerate(lefts))
    return Panorama(width=width, cameras=cameras, margin=0)


def views_of(picture: Image, panorama: Panorama) -> Image:
    """What each camera sees. [cameras, 256, 256, 3]"""
    lefts = [camera.column * FACTOR for camera in panorama.cameras]
    return np.stack([picture[:, left : left + VIEW_PX] for left in lefts])


def replica_of(latents: Sequence[Latent], panorama: Panorama) -> Replica:
    """What the twin holds once it has these views."""
    replica = Replica.blank(VIEW_COLUMNS, panorama.width)
    with open_store() as store:
        for camera, latent in zip(panorama.cameras, latents, strict=True):
            seen = panorama.doubt_edges(Feature(kind="observation", values=latent), camera)
            replica.refresh(seen, camera.view, source=camera.side, now_s=0, store=store)
    return replica


def put_together(
    pictures: Sequence[Image], panorama: Panorama, before: Image | None = None
) -> Image:
    """The panorama of pictures, cut where seeds are; of cameras whose picture is None, as before."""
    shape = (VIEW_PX, FACTOR * panorama.width, 3)
    whole = np.zeros(shape, np.uint8) if before is None else before.copy()
    for camera, picture in reversed(list(zip(panorama.cameras, pictures, strict=True))):
        if picture is None:
            continue
        left = EDGE_COLUMNS * FACTOR * (camera.view.start > 0)
        right = VIEW_PX - EDGE_COLUMNS * FACTOR * (camera.view.stop < panorama.width)
        at = camera.column * FACTOR
        whole[:, at + left : at + right] = picture[:, left:right]
    return whole


def arrived(packet: Packet) -> Delivery:
    """A packet over a link without errors."""
    return Delivery(payload=packet.payload)


def through(codec: Any, feature: Feature) -> tuple[Feature, int]:
    """What arrives of a feature over a link without errors, and its bits."""
    packet = codec.encode(feature)
    return codec.decode(arrived(packet)), packet.bits


def pieces(panorama: Image, size_px: int = VIEW_PX) -> Image:
    """Side by side, a view wide each; their upper left corners if smaller. [pieces, size, size, 3]"""
    count = panorama.shape[1] // VIEW_PX
    whole = panorama[:, : count * VIEW_PX]
    apart = whole.reshape(VIEW_PX, count, VIEW_PX, 3).swapaxes(0, 1)
    return np.ascontiguousarray(apart[:, :size_px, :size_px])


def told(values: Sequence[float]) -> dict[str, float]:
    """Mean over gardens, with a bootstrapped interval of 95 %."""
    found = np.asarray(values, float)
    drawn = found[resamples(len(found))].mean(1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return {name: round(float(v), 4) for name, v in
            (("mean", found.mean()), ("low", low), ("high", high))}  # fmt: skip


def resamples(count: int) -> NDArray[np.int64]:
    """Which gardens each resample has. [RESAMPLES, count]"""
    return np.random.default_rng(0).integers(count, size=(RESAMPLES, count))


def spelled(figure: dict[str, float], digits: int = 3) -> str:
    """With its interval."""
    mean, low, high = (f"{figure[name]:.{digits}f}" for name in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"
