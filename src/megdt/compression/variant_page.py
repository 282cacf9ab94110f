"""What a folder of smaller sub-models says of itself to people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from megdt.models import FACTOR


def describe_variant(content: Mapping[str, Any]) -> str:
    """The page of a variant, by its manifest."""
    lines = [
        "# Smaller sub-models for a UE", "",
        f"Made of bundle {content['bundle_sha256'][:12]} by `megdt compress`; use them with `--model` and this "
        "folder. What a picture looks like was measured on garden views that nothing was trained on.",
    ]  # fmt: skip
    for part, told in content["models"].items():
        card = told["card"]
        rows = [
            ("megabytes", card["megabytes"], card["megabytes_of_teacher"]),
            ("parameters", card["parameters"], card["parameters_of_teacher"]),
            ("gigaflops", card["gigaflops"], card["gigaflops_of_teacher"]),
            ("memory, MB", card["memory_mb"], card["memory_mb_of_teacher"]),
        ]
        latency = dict(card["latency_s"])
        before = latency.pop("this machine, teacher in fp32")
        for place, seconds in latency.items():
            on_device = seconds * card["gigaflops_of_teacher"] / card["gigaflops"]
            rows.append(
                (f"s on {place}", seconds, before if place == "this machine" else on_device)
            )
        quality = card["quality"]
        for key in ("psnr_db", "perceptual_distance"):
            if key in quality:
                rows.append((key.replace("_", " "), quality[key], quality.get(f"{key}_of_teacher")))
        lines += [
            "",
            f"## {part}: {card['recipe']}",
            "",
            "| | this | the bundle's in float32 |",
            "| --- | --- | --- |",
        ]
        lines += [
            f"| {name} | {ours:,.4g} | {'' if theirs is None else f'{theirs:,.4g}'} |"
            for name, ours, theirs in rows
        ]
        if "sizes" in told:
            lines += [
                "",
                "| size | gigaflops | psnr db | perceptual distance |",
                "| --- | --- | --- | --- |",
            ]
            cells = card["size_px"] ** 2 // FACTOR**2
            for size in told["sizes"]:
                found = size["quality"]
                flops = size["flops_per_cell"] * cells + size["flops_per_item"]
                far = found.get("perceptual_distance")
                lines.append(
                    f"| {size['size']} | {flops / 1e9:.2f} | {found['psnr_db']:.2f} | {'' if far is None else f'{far:.4f}'} |"
                )
        trained = card["trained"]
        lines += ["", f"At {card['size_px']} pixels. " + (
            f"Taught for {trained['steps']:,} steps in {trained['seconds']:,} s on {trained['views']} views."
            if trained["steps"] else "Not trained again."
        )]  # fmt: skip
    return "\n".join(lines) + "\n"
