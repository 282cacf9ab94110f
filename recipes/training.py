"""What every recipe needs: a device, a checkpoint that resumes, averaged weights, a model card."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

BUNDLE = Path(__file__).parent.parent / "src" / "megdt" / "models" / "bundle"


def pick_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("cpu")


def in_half(device: torch.device, *, enabled: bool = True) -> torch.autocast:
    """Compute in bfloat16 where that is faster: a CPU without it takes nine times as long."""
    fast = device.type != "cpu" or torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled and fast)


class Average:
    """Exponential moving average of a model's weights, buffers copied."""

    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        self.decay = decay
        self.values = {k: v.detach().float().clone() for k, v in model.state_dict().items()}

    def of(self, part: str) -> dict[str, Tensor]:
        """The averaged weights of one part of the model, named as in that part."""
        start = part + "."
        return {
            key.removeprefix(start): value
            for key, value in self.values.items()
            if key.startswith(start) and not key.endswith("num_batches_tracked")
        }

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for key, value in model.state_dict().items():
            if value.dtype.is_floating_point and "running" not in key:
                self.values[key].lerp_(value.float(), 1 - decay)
            else:
                self.values[key].copy_(value)


class Run:
    """One training: its checkpoint, its clock and its budget.

    A run stops at `steps` or after `minutes` of training, whichever is first, and a run started
    again on the same checkpoint goes on from there. The learning rate follows the larger share
    of the two budgets that is used up.
    """

    def __init__(self, checkpoint: Path, *, steps: int, minutes: float, rate: float) -> None:
        self.checkpoint, self.steps, self.rate = checkpoint, steps, rate
        self.budget_s = minutes * 60
        self.step, self.seconds = 0, 0.0
        self._started = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        if not self.checkpoint.exists():
            return None
        kept: dict[str, Any] = torch.load(self.checkpoint, weights_only=True)
        self.step, self.seconds = kept["step"], kept["seconds"]
        return kept

    def save(self, **parts: Any) -> None:
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.checkpoint.with_suffix(".new")
        torch.save({"step": self.step, "seconds": self.used_s(), **parts}, fresh)
        fresh.replace(self.checkpoint)

    def used_s(self) -> float:
        return self.seconds + time.monotonic() - self._started

    def share(self) -> float:
        return min(1.0, max(self.step / self.steps, self.used_s() / self.budget_s))

    def learning_rate(self, warmup: int = 200) -> float:
        """Linear warm-up, then a half cosine down to nothing."""
        falling = 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * self.share()))))
        return self.rate * min(1.0, (self.step + 1) / warmup) * falling


def save_model(
    name: str, tensors: dict[str, Tensor], card: dict[str, Any], folder: Path = BUNDLE
) -> None:
    """Write NAME.safetensors and its card NAME.json into the bundle, or another folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, path)
    card = {
        "name": name,
        "parameters": sum(v.numel() for v in tensors.values()),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "trained_on": f"{_processor()}, torch {torch.__version__}",
        "commit": _commit(),
        **card,
    }
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n")


def _processor() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} CPU cores, {platform.machine()}"


def _commit() -> str:
    asked = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
