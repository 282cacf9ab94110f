"""Pin what is installed: run.lock is megdt[sim] with its dependencies, dev.lock the rest.

Both are installed with --no-deps, so nothing that is not listed here gets in. torch is not listed:
its builds differ in what they need, so the Makefile names its version and pip brings the rest.
"""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

# Declared by packages, but nothing here imports them.
LEFT_OUT = {"pip", "megdt", "torchvision", "ipython", "opencv-python", "wheel"}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(roots: list[str]) -> set[str]:
    """The roots, with the extras that they name, and what they need, as far as it is installed."""
    found: set[str] = set()
    waiting = [Requirement(root) for root in roots]
    seen: set[str] = set()
    while waiting:
        asked = waiting.pop()
        name = normal(asked.name)
        if str(asked) in seen or name in LEFT_OUT:
            continue
        seen.add(str(asked))
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        for need in map(Requirement, needs):
            extras = ("", *asked.extras)
            if need.marker is None or any(need.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(need)
    return found


def main() -> None:
    folder = Path(__file__).parent
    declared = [Requirement(text) for text in metadata.requires("megdt") or []]
    direct, extra = [], []
    for requirement in declared:
        simulates = requirement.marker is not None and requirement.marker.evaluate({"extra": "sim"})
        listed = direct if requirement.marker is None or simulates else extra
        requirement.marker = None
        listed.append(str(requirement))
    # The build needs a newer setuptools than a fresh virtual environment has.
    run = closure(direct) - closure(["torch"]) | {"setuptools"}
    dev = closure([*extra, "stlpips-pytorch", "packaging"]) - run - closure(["torch"])
    for name, packages in (("run.lock", run), ("dev.lock", dev)):
        lines = [f"{package}=={metadata.version(package)}" for package in sorted(packages)]
        # A local version label such as +cpu names a build, and an index need not know it.
        (folder / name).write_text("".join(line.split("+")[0] + "\n" for line in lines))


if __name__ == "__main__":
    main()
