"""Frames of a video each by itself, and the autoencoder that codecs of frames hold at both ends.

`codecs/video.py` tells a frame by the one before; these are what that is compared with.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from megdt.codecs.image import FileImageCodec
from megdt.codecs.progressive import ProgressiveSeedCodec
from megdt.codecs.video import Models
from megdt.errors import CodecError
from megdt.models import FACTOR
from megdt.records import Delivery, Feature, Packet

if TYPE_CHECKING:
    from megdt.models.bundle import Bundle


class BundledAutoencoder:
    """The package's own; read, and torch with it, when a frame is first coded."""

    @property
    def flops(self) -> float:
        """Floating point operations of this thread so far."""
        return _bundle().flops

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """RGB [batch, height, width, 3] to latents [batch, 4, height / 8, width / 8]."""
        return _bundle().encode(images)

    def decode(self, latents: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Latents [batch, 4, height, width] to RGB [batch, 8 * height, 8 * width, 3]."""
        return _bundle().decode(latents)


def _bundle() -> Bundle:
    from megdt.models.bundle import load_bundle

    return load_bundle()


@dataclass(frozen=True, kw_only=True)
class SeedFrameCodec:
    """A frame as a progressive seed that needs no other frame.

    Args:
        models: The autoencoder, the same at both ends.
        seed: How the seed is coded.
    """

    models: Models
    seed: ProgressiveSeedCodec

    @property
    def flops(self) -> float:
        """Floating point operations of the networks so far, where they count them."""
        return float(getattr(self.models, "flops", 0.0))

    def encode(self, feature: Feature) -> Packet:
        """The seed of one picture. [height_px, width_px, 3]

        Raises:
            CodecError: If it is not a picture of the codec's size.
        """
        _, rows, columns = self.seed.shape
        image: NDArray[Any] = np.asarray(feature.values)
        if image.dtype != np.uint8 or image.shape != (FACTOR * rows, FACTOR * columns, 3):
            raise CodecError(
                f"frame is {image.dtype} {image.shape}, this codec carries uint8 "
                f"{(FACTOR * rows, FACTOR * columns, 3)}; build it for the size of the video"
            )
        return self.seed.encode(Feature(kind="seed", values=self.models.encode(image[None])[0]))

    def decode(self, delivery: Delivery) -> Feature:
        """The picture.

        Raises:
            CodecError: If what arrived is no seed of this codec.
        """
        latent = self.seed.decode(delivery).values
        return Feature(kind="frame", values=self.models.decode(latent[None])[0])


@dataclass(frozen=True, kw_only=True)
class FileFrameCodec:
    """A frame as a picture file.

    Args:
        image: How it is written.
    """

    image: FileImageCodec

    def encode(self, feature: Feature) -> Packet:
        """The file."""
        return self.image.encode(replace(feature, kind="image"))

    def decode(self, delivery: Delivery) -> Feature:
        """The picture."""
        return replace(self.image.decode(delivery), kind="frame")
