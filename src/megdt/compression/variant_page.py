"""What a folder of smaller sub-models says of itself to people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from megdt.models import FACTOR

Row = tuple[str, float, float | None]


def describe_variant(content: Mapping[str, Any]) -> str:
    """The page of a variant, by its manifest."""
    lines = [
        "# Smaller sub-models for a UE", "",
        f"Made of bundle {content['bundle_sha256'][:12]} by `megdt compress`; use them with `--model` and this "
        "folder.",
    ]  # fmt: skip
    for part, told in content["models"].items():
        card = told["card"]
        rows = [*_list_costs(card), *_list_quality(card["quality"])]
        lines += ["", f"## {part}: {card['recipe']}", ""]
        lines += ["| | this | the bundle's in float32 |", "| --- | --- | --- |"]
        lines += [f"| {name} | {_show(ours)} | {_show(theirs)} |" for name, ours, theirs in rows]
        if "sizes" in told:
            lines += _describe_sizes(told["sizes"], card["size_px"])
        lines += ["", _describe_conditions(card)]
    return "\n".join(lines) + "\n"


def _list_costs(card: Mapping[str, Any]) -> Iterator[Row]:
    yield "size, MB", card["megabytes"], card["megabytes_of_teacher"]
    yield "parameters, thousands", card["parameters"] / 1e3, card["parameters_of_teacher"] / 1e3
    yield "operations of a call, GFLOP", card["gigaflops"], card["gigaflops_of_teacher"]
    yield "memory, MB", card["memory_mb"], card["memory_mb_of_teacher"]
    latency = dict(card["latency_s"])
    before = latency.pop("this machine, teacher in fp32")
    longer = card["gigaflops_of_teacher"] / card["gigaflops"]
    for place, seconds in latency.items():
        whole = before if place == "this machine" else seconds * longer
        yield f"a call on {place}, ms", 1e3 * seconds, 1e3 * whole
    for place, joules in card["energy_j"].items():
        yield f"energy of a call on {place}, mJ", 1e3 * joules, 1e3 * joules * longer


def _list_quality(quality: Mapping[str, Any]) -> Iterator[Row]:
    labels = {
        "psnr_db": "PSNR, dB",
        "perceptual_distance": "ST-LPIPS",
        "psnr_db_at_10_db": "PSNR where the latent has noise at 10 dB, dB",
        "psnr_db_at_0_db": "the same at 0 dB, dB",
    }
    for key, label in labels.items():
        if key in quality:
            yield label, quality[key], quality.get(f"{key}_of_teacher")


def _describe_sizes(sizes: list[dict[str, Any]], size_px: int) -> list[str]:
    lines = ["", "| size | operations, GFLOP | PSNR, dB | ST-LPIPS |", "| --- | --- | --- | --- |"]
    for told in sizes:
        found, cells = told["quality"], size_px**2 // FACTOR**2
        flops = told["flops_per_cell"] * cells + told["flops_per_item"]
        shown = map(_show, (flops / 1e9, found["psnr_db"], found.get("perceptual_distance")))
        lines.append(f"| {told['size']} | {' | '.join(shown)} |")
    return lines


def _describe_conditions(card: Mapping[str, Any]) -> str:
    quality, trained = card["quality"], card["trained"]
    training = (
        f"Trained for {trained['steps']:,} steps in {trained['seconds']:,} s on {trained['views']} views."
        if trained["steps"]
        else "Not trained again."
    )
    return (
        f"Costs are of pictures of {card['size_px']} pixels; what devices take follows from operations alone. "
        f"Quality is against {quality['reference']}, the mean of {quality['views']} views of "
        f"{quality['size_px']} pixels that nothing was trained on. {training}"
    )


def _show(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}"
