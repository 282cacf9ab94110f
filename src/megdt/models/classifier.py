"""A small network that names what a garden picture shows, to measure prompt adherence."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from megdt.worlds.scene import COLOURS, SKIES, SPECIES

LABELS: dict[str, tuple[str, ...]] = {"species": SPECIES, "colour": COLOURS, "sky": SKIES}

PROBE_FEATURES = (
    "megdt scene classifier, last layer, mean and a tenth of the maximum, 320 dimensions"
)
"""What `probe_features` gives, to be named wherever a figure on it is."""

# Maxima have a hundred times the mean square of means. Like this both have 0.2 on garden views:
# neither drowns the other, and KID's kernel, which has a scale of its own, bends as it should.
_MAXIMUM_GAIN = 0.1


class SceneClassifier(nn.Module):
    """Main species, its colour, and the sky of a 256-pixel picture."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(2),
            _down(12, 32),
            _down(32, 64),
            _down(64, 96),
            _down(96, 128),
            nn.Conv2d(128, 160, 3, padding=1),
            nn.SiLU(),
        )
        self.heads = nn.ModuleDict(
            {name: nn.Linear(320, len(values)) for name, values in LABELS.items()}
        )

    def forward(
        self, image: Float[Tensor, "batch 3 256 256"]
    ) -> dict[str, Float[Tensor, "batch _"]]:
        """Scores of every label.

        Args:
            image: RGB in [-1, 1]. [batch, 3, 256, 256]

        Returns:
            By attribute. [batch, values]
        """
        pooled = self.pool(image)
        return {name: head(pooled) for name, head in self.heads.items()}

    def pool(self, image: Float[Tensor, "batch 3 256 256"]) -> Float[Tensor, "batch 320"]:
        """What the heads decide by."""
        found = self.layers(image)
        return torch.cat((found.mean((2, 3)), found.amax((2, 3))), 1)


def _down(enter: int, leave: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(enter, leave, 3, stride=2, padding=1), nn.BatchNorm2d(leave), nn.SiLU()
    )


@torch.inference_mode()
def classify(
    model: SceneClassifier, images: NDArray[np.uint8], *, batch_size: int = 32
) -> dict[str, NDArray[np.int64]]:
    """The best label of every picture, as its index in LABELS.

    Args:
        model: In evaluation mode.
        images: RGB. [count, 256, 256, 3]
        batch_size: Pictures at once.

    Returns:
        By attribute. [count]
    """
    device = next(model.parameters()).device
    parts: dict[str, list[NDArray[np.int64]]] = {name: [] for name in LABELS}
    for start in range(0, len(images), batch_size):
        batch = torch.tensor(images[start : start + batch_size], device=device)
        scores = model(batch.permute(0, 3, 1, 2).float() / 127.5 - 1)
        for name, values in scores.items():
            parts[name].append(values.argmax(1).cpu().numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}


@torch.inference_mode()
def probe_features(
    model: SceneClassifier, images: NDArray[np.uint8], *, batch_size: int = 32
) -> NDArray[np.float32]:
    """The PROBE_FEATURES of pictures, for distances between sets such as `quality.kid`.

    Args:
        model: In evaluation mode.
        images: RGB. [count, 256, 256, 3]
        batch_size: Pictures at once.

    Returns:
        [count, 320]
    """
    gain = torch.ones(320)
    gain[160:] = _MAXIMUM_GAIN
    parts = []
    for start in range(0, len(images), batch_size):
        batch = torch.tensor(images[start : start + batch_size])
        pooled = model.pool(batch.permute(0, 3, 1, 2).float() / 127.5 - 1)
        parts.append((pooled * gain).numpy())
    return np.concatenate(parts)
