"""The ways to get a picture across that Fig. 6 is about, each one line of the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

GARDEN, PHOTOGRAPHS, GENERATED = "garden", "photographs", "generated"
SETS = (GARDEN, PHOTOGRAPHS, GENERATED)

SPLIT, DIGITAL, AVIF, WEBP = "split, analog", "split, digital", "AVIF + LDPC", "WebP + LDPC"
JSCC, JSCC_HALF = "JSCC", "JSCC, half the uses"
HYBRID, HYBRID_HALF = "hybrid", "hybrid, half the uses"
RAW, PROMPT = "raw pixels", "prompt only"
PAPER_SPLIT, PAPER_CENTRALIZED = "MEG-DT, paper mode", "centralized, paper mode"


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """One way to get the picture across."""

    name: str
    crosses: str
    """"seed", "image", "sketch" or "recipe"."""
    codec: str
    plan: Mapping[str, Any] = field(default_factory=dict)
    budget: str | None = None
    """Key of the plan that is set to the bits that fit in the split's channel uses."""
    whole: Sequence[str] = ()
    """Sets of which all pictures are sent, for distances between sets; else the few."""
    sets: Sequence[str] = (GARDEN, PHOTOGRAPHS, GENERATED)
    energy: bool = False
    """Takes other channel uses than the split: also sent at equal radiated energy."""


ALL = (GARDEN, GENERATED)
SCHEMES = (
    # The split first: its channel uses are the budget of what follows.
    Scheme(name=SPLIT, crosses="seed", codec="analog", whole=ALL),
    Scheme(name=DIGITAL, crosses="seed", codec="progressive", budget="seed_bits", whole=[GARDEN]),
    Scheme(name=JSCC, crosses="seed", codec="jscc", whole=[GARDEN]),
    Scheme(
        name=JSCC_HALF, crosses="seed", codec="jscc", plan={"symbol_rate": 0.5}, whole=ALL, energy=True
    ),
    Scheme(name=HYBRID, crosses="seed", codec="hybrid", whole=[GARDEN]),
    Scheme(
        name=HYBRID_HALF, crosses="seed", codec="hybrid", plan={"symbol_rate": 0.5}, whole=[GARDEN],
        energy=True,
    ),
    Scheme(name=AVIF, crosses="image", codec="avif", budget="image_bits", whole=[GARDEN]),
    Scheme(name=WEBP, crosses="image", codec="webp", budget="image_bits"),
    Scheme(name=RAW, crosses="image", codec="analog", energy=True),
    Scheme(name=PROMPT, crosses="recipe", codec="text", sets=(GENERATED,)),
    Scheme(
        name=PAPER_SPLIT, crosses="seed", codec="analog", plan={"mode": "paper"}, whole=ALL,
        sets=(GENERATED,),
    ),
    Scheme(
        name=PAPER_CENTRALIZED, crosses="image", codec="analog", plan={"mode": "paper"}, whole=ALL,
        sets=(GENERATED,),
    ),
)  # fmt: skip


def sketches(styles: Sequence[str]) -> tuple[Scheme, ...]:
    """A scheme a style; the garden's alone, they are slow: the receiver draws the picture."""
    return tuple(
        Scheme(name=f"sketch, {style}", crosses="sketch", codec=style, sets=(GARDEN,), energy=True)
        for style in styles
    )
