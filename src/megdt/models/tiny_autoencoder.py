"""Tiny autoencoders of the TAESD family, as they are published: two files of weights.

    models = TinyAutoencoder("taef2")     # NAME_encoder.safetensors, NAME_decoder.safetensors

They take pictures to the latents of a large model and back (TAESD, TAESDXL, TAESD3, TAEF1, TAEF2;
https://github.com/madebyollin/taesd). No denoiser is with them, so they send pictures and draw none.
The architecture is read from the names of the weights.
"""

from __future__ import annotations

import hashlib
import threading
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from megdt.errors import BundleError, MechanismError, RequestError
from megdt.models.flop_counting import count_flops, shapes_of
from megdt.models.pretrained import check_numbered, find_folder, find_halves, read_space

_GROUPS, _WIDER = 4, 4
_CANNOT = frozenset(
    {"embed", "denoise", "finish", "edit", "enlarge", "redraw", "fuse", "write", "classify"}
)


class _Block(nn.Module):
    """Three convolutions beside what comes in; under Flux.2 with a look at the whole first."""

    def __init__(self, entering: int, leaving: int, *, pooled: bool) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(entering, leaving, 3, padding=1), nn.ReLU(),
            nn.Conv2d(leaving, leaving, 3, padding=1), nn.ReLU(),
            nn.Conv2d(leaving, leaving, 3, padding=1),
        )  # fmt: skip
        self.skip = (
            nn.Identity() if entering == leaving else nn.Conv2d(entering, leaving, 1, bias=False)
        )
        wide = _WIDER * entering
        self.pool = (
            nn.Sequential(
                nn.Conv2d(entering, wide, 1, bias=False), nn.GroupNorm(_GROUPS, wide), nn.ReLU(),
                nn.Conv2d(wide, entering, 1, bias=False),
            )
            if pooled
            else None
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        made: Tensor = functional.relu(self.conv(x) + self.skip(x))
        return made


class _Clamp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


def build_half(weights: dict[str, Tensor], *, decodes: bool) -> nn.Sequential:
    """Encoder or decoder of weights that are numbered as its layers.

    Raises:
        BundleError: If a layer has weights that are of no layer of the family.
    """
    parts: dict[int, dict[str, Tensor]] = {}
    for name, values in weights.items():
        layer, _, rest = name.partition(".")
        parts.setdefault(int(layer), {})[rest] = values
    layers: list[nn.Module] = []
    for number in range(max(parts) + 1):
        there = parts.get(number)
        if there is None:
            # Layers without weights: the clamp before, the activation after the first, enlarging.
            bare = (
                _Clamp()
                if number == 0
                else nn.ReLU()
                if number == 2
                else nn.Upsample(scale_factor=2)
            )
            layers.append(bare)
        elif "conv.0.weight" in there:
            leaving, entering = there["conv.0.weight"].shape[:2]
            layers.append(_Block(entering, leaving, pooled="pool.0.weight" in there))
        else:
            leaving, entering = there["weight"].shape[:2]
            # Without an offset it halves the picture, or follows where it was enlarged.
            halves = "bias" not in there and not decodes
            layers.append(
                nn.Conv2d(
                    entering, leaving, 3, stride=2 if halves else 1, padding=1, bias="bias" in there
                )
            )
    half = nn.Sequential(*layers)
    try:
        half.load_state_dict({name: values.float() for name, values in weights.items()})
    except RuntimeError as error:
        raise BundleError(
            f"weights are of no tiny autoencoder that is known ({str(error).splitlines()[-1].strip()})"
        ) from None
    return half.eval()


class TinyAutoencoder:
    """Pictures to latents and back; arrays go in and out as NumPy, with a leading batch axis.

    Args:
        name: A folder with NAME_encoder.safetensors and NAME_decoder.safetensors.
        device: Where it runs.

    Raises:
        BundleError: If there is no such folder.
    """

    def __init__(self, name: str, *, device: str = "cpu") -> None:
        self.name, self.folder = name, find_folder(name)
        self.space = read_space(self.folder)
        self.device = torch.device(device)
        self._count = threading.local()
        self._counted: dict[Any, float] = {}

    def __getattr__(self, name: str) -> Any:
        if name in _CANNOT:
            raise MechanismError(
                f"model {self.name} is an autoencoder alone, which cannot {name}; take mechanism ue_to_es "
                "or send_picture, or name a whole pipeline"
            )
        raise AttributeError(name)

    @property
    def flops(self) -> float:
        """Floating point operations so far, as far as this thread has called it."""
        return float(getattr(self._count, "flops", 0.0))

    @cached_property
    def checksum(self) -> str:
        """Over the weights of both halves."""
        encoder, decoder = find_halves(self.folder)
        return hashlib.sha256(encoder.read_bytes() + decoder.read_bytes()).hexdigest()

    def load(self, *names: str) -> None:
        """Read halves now instead of when they are first used."""
        for name in set(names) & {"encoder", "decoder"}:
            getattr(self, f"_{name}")

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Latents of pictures. [batch, latent_channels, height / factor, width / factor]

        Raises:
            RequestError: If a side is not a multiple of the factor.
        """
        height, width = images.shape[1:3]
        factor = self.space.factor
        if height % factor or width % factor:
            raise RequestError(
                f"images are {height} x {width} pixels, the autoencoder needs multiples of {factor}; crop "
                f"them to {height // factor * factor} x {width // factor * factor}"
            )
        batch = torch.tensor(images, device=self.device).permute(0, 3, 1, 2).float() / 255
        return self._run("encoder", batch).cpu().numpy()

    def decode(
        self, latents: NDArray[np.float32], noise_power: NDArray[np.float32] | None = None
    ) -> NDArray[np.uint8]:
        """Pictures of latents; it is not told of their noise. [batch, height, width, 3]"""
        del noise_power
        image = self._run("decoder", torch.tensor(latents, device=self.device))
        pixels = (image * 255).round().clamp(0, 255).to(torch.uint8)
        images: NDArray[np.uint8] = pixels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return images

    @torch.inference_mode()
    def _run(self, name: str, batch: Tensor) -> Tensor:
        half: nn.Module = getattr(self, f"_{name}")
        made: Tensor = half(batch)
        call = name, shapes_of(batch)
        if call not in self._counted:
            self._counted[call] = count_flops(half, "forward", (batch,), {})
        self._count.flops = self.flops + self._counted[call]
        return made

    @cached_property
    def _encoder(self) -> nn.Module:
        return self._read(0)

    @cached_property
    def _decoder(self) -> nn.Module:
        return self._read(1)

    def _read(self, which: int) -> nn.Module:
        path = find_halves(self.folder)[which]
        try:
            weights = load(path.read_bytes())
        except (OSError, SafetensorError) as error:
            raise BundleError(
                f"{path} is not a safetensors file ({error}); fetch it again"
            ) from None
        check_numbered(weights, str(path))
        return build_half(weights, decodes=which == 1).to(self.device)
