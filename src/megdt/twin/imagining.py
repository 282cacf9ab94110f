"""Imagining: what no UE has seen of the panorama, drawn to go on from what was seen beside it.

It is a guess, and stays marked as one: when a latent was seen is left at NEVER, so a mechanism that
recalls it is told confidence 0, `assess` counts its tile as never seen, and the store never has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from megdt.errors import TwinError
from megdt.mechanisms.panorama import VIEW_COLUMNS
from megdt.models import FACTOR
from megdt.models.writing import caption
from megdt.twin.objects import LABELS, Namer
from megdt.twin.replica import Replica
from megdt.worlds.captions import Attributes

STEPS, REPEATS, GUIDANCE_SCALE = 12, 3, 2.5
"""Of a drawing; each step thrice, as flowers at the border then fit better than in more steps once."""


class Imagination(Namer, Protocol):
    """What draws panoramas and names what they show; the bundle is one."""

    def embed(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """[batch, embedding]"""
        ...

    def outpaint(
        self,
        latents: NDArray[np.float32],
        seen: NDArray[np.bool_],
        prompt_embeds: NDArray[np.float32],
        rng_seed: int,
        *,
        steps: int,
        guidance_scale: float,
        repeats: int = 1,
    ) -> NDArray[np.float32]:
        """[latent_channels, height, panorama]"""
        ...

    def decode(self, latents: NDArray[np.float32]) -> NDArray[np.uint8]:
        """[batch, 8 * height, 8 * width, 3]"""
        ...


def imagine(
    replica: Replica,
    models: Imagination,
    *,
    rng_seed: int,
    prompts: Sequence[str] | None = None,
    steps: int = STEPS,
    repeats: int = REPEATS,
    guidance_scale: float = GUIDANCE_SCALE,
) -> Replica:
    """The replica with all that nobody has seen drawn: a guess, in no store.

    Args:
        replica: As it is; it stays so.
        models: Draw it.
        rng_seed: Draws the noise: another one, another guess.
        prompts: What to draw, one for each of `window_lefts`, "" for whatever fits; `describe` of
            the replica when left out.
        steps: Denoising steps.
        repeats: How often each is made.
        guidance_scale: How strongly the prompts lead.

    Returns:
        Of the same `seen_s`, so what is guessed is what was never seen.

    Raises:
        TwinError: If it is not a view high, or narrower than one.
        RequestError: If there is not one prompt for each window.
    """
    _check(replica)
    words = describe(replica, models) if prompts is None else prompts
    embeds = models.embed(list(words))
    embeds[[not one for one in words]] = 0  # no prompt
    values = models.outpaint(
        replica.values, np.isfinite(replica.seen_s), embeds, rng_seed,
        steps=steps, repeats=repeats, guidance_scale=guidance_scale,
    )  # fmt: skip
    return replace(replica, values=values, seen_s=replica.seen_s.copy(), sources=[*replica.sources])


def describe(replica: Replica, models: Imagination) -> list[str]:
    """What each window would show if it were as the nearest view that was wholly seen.

    Returns:
        A sentence for each of `window_lefts`; "" where nothing was wholly seen.

    Raises:
        TwinError: As `imagine`.
    """
    from megdt.models.outpainting import window_lefts  # torch

    _check(replica)
    there = np.isfinite(replica.seen_s).all(0)
    whole = np.lib.stride_tricks.sliding_window_view(there, VIEW_COLUMNS).all(1)
    seen = np.flatnonzero(whole)
    wanted = window_lefts(replica.width)
    if not seen.size:
        return ["" for _ in wanted]
    nearest = [int(seen[np.abs(seen - left).argmin()]) for left in wanted]
    lefts = sorted(set(nearest))
    views = np.stack([replica.values[:, :, left : left + VIEW_COLUMNS] for left in lefts])
    named = models.classify(models.decode(views))
    sentences = {
        left: caption(
            Attributes(**{w: names[int(named[w][n])] for w, names in LABELS.items()}), left
        )
        for n, left in enumerate(lefts)
    }
    return [sentences[left] for left in nearest]


def guessed(replica: Replica) -> NDArray[np.bool_]:
    """Pixels whose latents nobody has seen, for whoever shows the replica. [8 * height, 8 * panorama]"""
    return np.isinf(replica.seen_s).repeat(FACTOR, 0).repeat(FACTOR, 1)


def _check(replica: Replica) -> None:
    if replica.height != VIEW_COLUMNS or replica.width < VIEW_COLUMNS:
        raise TwinError(
            f"the replica is {replica.height} x {replica.width} latents, what is unseen is drawn at "
            f"{VIEW_COLUMNS} rows and {VIEW_COLUMNS} columns or more; take a replica of 256 pixels"
        )
