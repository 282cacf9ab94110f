"""Floating point operations of networks that are not ours, by their configuration."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode


def count_flops(part: nn.Module, name: str, args: Any, kwargs: Mapping[str, Any]) -> float:
    """Floating point operations of a call, by a copy of the part that has shapes and no numbers."""
    kind: Any = type(part)
    with torch.device("meta"), torch.no_grad():
        if hasattr(part, "config"):
            # Networks of diffusers are made of what they have written down, of transformers of an object.
            shadow = getattr(kind, "from_config", kind)(part.config)
        else:
            shadow = copy.deepcopy(part).to("meta")
        shadow.to(next(part.parameters()).dtype)
        with FlopCounterMode(display=False) as counter:
            getattr(shadow, name)(*_to_meta(args), **_to_meta(kwargs))
    return float(counter.get_total_flops())


def shapes_of(value: Any) -> Any:
    """What the operations of a call depend on."""
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, dict):
        return tuple((key, shapes_of(item)) for key, item in sorted(value.items()))
    if isinstance(value, list | tuple):
        return tuple(map(shapes_of, value))
    return value if isinstance(value, int | float | str | bool | None) else type(value).__name__


def _to_meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to("meta")
    if isinstance(value, dict):
        return {key: _to_meta(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_to_meta, value))
    return value
