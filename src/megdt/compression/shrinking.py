"""Networks with fewer operations, made of the weights of a larger one; `distillation.py` mends what it costs.

`prune` takes away whole channels, `decompose` writes convolutions as three thinner ones. Both leave what
goes in and out as it was.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

from megdt.errors import MissingExtraError, RequestError

try:
    import torch
    import torch_pruning
    from tensorly.decomposition import partial_tucker
    from torch import Tensor, nn
except ImportError:
    raise MissingExtraError(
        "making models smaller needs torch-pruning and tensorly; pip install 'megdt[compress]'"
    ) from None

from megdt.models.autoencoder import Decoder, _ResidualBlock

ROUND_TO = 8
"""Channels that are left are a multiple of it, which processors are fast on."""
_MOST = 0.9
"""Share of one layer's channels that may go, so that none becomes a bottle's neck."""
_ALONE = 32
"""Layers with fewer channels are not decomposed: nothing would be saved."""


def prune(model: nn.Module, inputs: Sequence[tuple[Tensor, ...]], keep: float) -> nn.Module:
    """A copy with a share of the channels inside its residual blocks.

    Those go, across all blocks at once, without which what a block adds to its input changes least: by the
    power of the channel times that of the weights that read it (as Sun et al., arXiv:2306.11695, for
    single weights; what hangs together is found as Fang et al. do it, arXiv:2301.12900).

    Args:
        model: An encoder or a decoder.
        inputs: Calls of it, in which the power of channels is measured.
        keep: Share of the channels to keep, above 0.

    Raises:
        RequestError: If `keep` is out of range.
    """
    _check_share("keep", keep)
    pruned = copy.deepcopy(model).requires_grad_()  # by which its layers are found to hang together
    blocks = [block for block in pruned.modules() if isinstance(block, _ResidualBlock)]
    power = _Power(pruned, blocks, inputs)
    others = [
        layer
        for layer in pruned.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm2d) and layer not in power.of
    ]
    pruner = torch_pruning.pruner.BasePruner(
        pruned, inputs[0], importance=power, pruning_ratio_dict=_shares_to_go(power.of, keep),
        round_to=ROUND_TO, ignored_layers=others,
    )  # fmt: skip
    pruner.step()
    return pruned


def _shares_to_go(power: dict[nn.Module, Tensor], keep: float) -> dict[nn.Module, float]:
    """Of each layer, so that across all of them the strongest channels stay."""
    every = torch.cat(list(power.values()))
    weakest = every.topk(max(1, round(keep * len(every)))).values[-1]
    shares = {}
    for layer, each in power.items():
        stay = max(int((each >= weakest).sum()), (1 - _MOST) * len(each))
        shares[layer] = 1 - min(len(each), ROUND_TO * -(-stay // ROUND_TO)) / len(each)
    return shares


class _Power:
    """How much each channel inside a block adds to what the block gives."""

    def __init__(
        self, model: nn.Module, blocks: list[_ResidualBlock], inputs: Sequence[tuple[Tensor, ...]]
    ) -> None:
        read = _read_power(model, [block.second for block in blocks], inputs)
        self.of: dict[nn.Module, Tensor] = {block.first: read[block.second] for block in blocks}

    def __call__(self, group: Any, **_: Any) -> Tensor | None:
        """Of the channels of a group of layers that hang together."""
        targets = [part.dep.target.module for part in group]
        found = [self.of[target] for target in targets if target in self.of]
        return found[0] if found else None


def _read_power(
    model: nn.Module, readers: Sequence[nn.Conv2d], inputs: Sequence[tuple[Tensor, ...]]
) -> dict[nn.Module, Tensor]:
    """Of each channel that a convolution reads, its power times that of the weights that read it."""
    found: dict[nn.Module, Tensor] = {}

    def add(layer: nn.Module, given: tuple[Tensor, ...], _: Tensor) -> None:
        weights: Tensor = layer.weight  # type: ignore[assignment]
        power = given[0].square().mean((0, 2, 3)) * weights.square().sum((0, 2, 3))
        found[layer] = found.get(layer, torch.zeros_like(power)) + power

    watching = [layer.register_forward_hook(add) for layer in readers]
    with torch.no_grad():
        for given in inputs:
            model(*given)
    for each in watching:
        each.remove()
    return found


@torch.no_grad()
def inherit(student: Decoder, teacher: Decoder, inputs: Sequence[tuple[Tensor, ...]]) -> None:
    """Give a smaller decoder the teacher's channels that carry most, and its blocks that do.

    From there it learns far faster than from weights of no meaning. Channels come in the order of what they carry,
    so that the first ones are also what a still smaller one would take.

    Args:
        student: Of which the weights are overwritten; no larger than the teacher.
        teacher: Whose weights they are.
        inputs: Calls of it, in which the power of channels is measured.
    """
    readers = [
        layer
        for layer in teacher.modules()
        if isinstance(layer, nn.Conv2d) and layer is not teacher.enter
    ]
    power = _read_power(teacher, readers, inputs)

    def most(readers: list[Any], count: int) -> Tensor:
        return torch.stack([power[layer] for layer in readers]).sum(0).topk(count).indices

    our_low, our_high, low_blocks, high_blocks = (
        [cast(_ResidualBlock, block) for block in blocks]
        for blocks in (student.low, student.high, teacher.low, teacher.high)
    )
    wide, narrow = student.rise.in_channels, student.leave.in_channels
    low = most([*(block.first for block in low_blocks), teacher.rise], wide)
    high = most([*(block.first for block in high_blocks), teacher.leave], narrow)

    def give(ours: nn.Conv2d, theirs: nn.Conv2d, leaving: Tensor, entering: Tensor) -> None:
        ours.weight.copy_(theirs.weight[leaving][:, entering])
        assert ours.bias is not None
        assert theirs.bias is not None
        ours.bias.copy_(theirs.bias[leaving])

    give(student.enter, teacher.enter, low, torch.arange(teacher.enter.in_channels))
    student.noise[0].load_state_dict(teacher.noise[0].state_dict())
    for ours, theirs in zip(
        student.noise[2].parameters(), teacher.noise[2].parameters(), strict=True
    ):
        # Gains of all channels, then offsets of all channels.
        ours.copy_(torch.cat([half[low] for half in theirs.chunk(2)]))
    # The blocks whose insides add most, in their order.
    adds = torch.stack([power[block.second].sum() for block in low_blocks])
    kept = adds.topk(len(our_low)).indices.sort()[0].tolist()
    pairs = [
        *((ours, low_blocks[index], low) for ours, index in zip(our_low, kept, strict=True)),
        *((ours, theirs, high) for ours, theirs in zip(our_high, high_blocks, strict=True)),
    ]
    for ours_block, theirs_block, stream in pairs:
        inside = most([theirs_block.second], ours_block.first.out_channels)
        give(ours_block.first, theirs_block.first, inside, stream)
        give(ours_block.second, theirs_block.second, stream, inside)
    # The shuffle makes one channel of four.
    fours = (4 * high[:, None] + torch.arange(4)).flatten()
    give(student.rise, teacher.rise, fours, low)
    give(student.leave, teacher.leave, torch.arange(teacher.leave.out_channels), high)


def decompose(model: nn.Module, keep: float) -> nn.Module:
    """A copy whose convolutions are each three: into fewer channels, between these, and out again.

    The weights are those of the Tucker decomposition over both channel axes (Kim et al., arXiv:1511.06530).

    Args:
        model: Any network; its layers with few channels stay.
        keep: Rank over channels, above 0.

    Raises:
        RequestError: If `keep` is out of range.
    """
    _check_share("keep", keep)
    thinner = copy.deepcopy(model).requires_grad_()
    for parent in list(thinner.modules()):
        for name, layer in list(parent.named_children()):
            if (
                isinstance(layer, nn.Conv2d)
                and layer.kernel_size != (1, 1)
                and min(layer.weight.shape[:2]) >= _ALONE
            ):
                setattr(parent, name, _three(layer, keep))
    return thinner


def _three(layer: nn.Conv2d, keep: float) -> nn.Sequential:
    leaving, entering = layer.weight.shape[:2]
    ranks = [max(ROUND_TO, round(n * keep / ROUND_TO) * ROUND_TO) for n in (leaving, entering)]
    (core, (out, into)), _ = partial_tucker(layer.weight.detach().numpy(), rank=ranks, modes=[0, 1])
    first = nn.Conv2d(entering, ranks[1], 1, bias=False)
    middle = nn.Conv2d(
        ranks[1], ranks[0], layer.kernel_size, layer.stride, layer.padding, bias=False  # type: ignore[arg-type]
    )  # fmt: skip
    last = nn.Conv2d(ranks[0], leaving, 1, bias=layer.bias is not None)
    with torch.no_grad():
        first.weight.copy_(torch.from_numpy(into.T.copy())[:, :, None, None])
        middle.weight.copy_(torch.from_numpy(core.copy()))
        last.weight.copy_(torch.from_numpy(out.copy())[:, :, None, None])
        if layer.bias is not None:
            assert last.bias is not None
            last.bias.copy_(layer.bias)
    return nn.Sequential(first, middle, last)


def _check_share(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise RequestError(f"{name} is {value}, a share of the channels is above 0 and at most 1")
