"""The replica: the panorama as the twin knows it, in latents, tile by tile.

A tile is a few columns of latents. Each latent of it says when it was last seen and by whom it was,
and what nobody has seen says so. Every refresh is a revision of the store, so the replica of any past
time can be read back and decoded.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from megdt.errors import TwinError
from megdt.mechanisms.panorama import Columns
from megdt.mechanisms.stages import Models
from megdt.models import LATENT_CHANNELS
from megdt.records import Feature, Side
from megdt.twin.entities import Entity, Update
from megdt.twin.store import Store

TILE_COLUMNS = 8
"""A metre of the garden, at 256 pixels."""

SURE = 0.5
"""Confidence from which on what was seen takes the place of what there was."""

NEVER = -math.inf
"""When a latent was seen that nobody has seen."""

_STEP = 1 / 32
"""Of latents as they are kept: one byte each, as far as 4 standard deviations."""


@dataclass(kw_only=True)
class Replica:
    """The panorama in latents, with when each was seen.

    Args:
        values: Zeros where nobody has looked. [latent_channels, height, panorama]
        seen_s: On the twin's clock, NEVER where nobody has looked. [height, panorama]
        sources: Who has last refreshed each tile; None for nobody.
        revision: Of the store, whose tiles these are; 0 before the first.
    """

    values: NDArray[np.float32]
    seen_s: NDArray[np.float64]
    sources: list[Side | None] = field(default_factory=list)
    revision: int = 0

    @classmethod
    def blank(cls, height: int, width: int) -> Replica:
        """Of a panorama that nobody has seen.

        Raises:
            TwinError: If it has no whole number of tiles.
        """
        if height < 1 or width < 1 or width % TILE_COLUMNS:
            raise TwinError(
                f"the panorama is {height} x {width} latents; a replica has tiles of {TILE_COLUMNS} "
                f"columns: take a multiple, such as {-(-max(width, 1) // TILE_COLUMNS) * TILE_COLUMNS}"
            )
        return cls(
            values=np.zeros((LATENT_CHANNELS, height, width), np.float32),
            seen_s=np.full((height, width), NEVER),
            sources=[None] * (width // TILE_COLUMNS),
        )

    @classmethod
    def read(cls, store: Store, height: int, width: int, *, at: int | None = None) -> Replica:
        """As the store has it, now or at a revision.

        Raises:
            TwinError: If a tile there is of another panorama.
        """
        replica = cls.blank(height, width)
        for entity in store.entities("tile", at=at):
            replica._take(entity)
        replica.revision = store.revision if at is None else at
        return replica

    @property
    def height(self) -> int:
        """In latents."""
        return int(self.values.shape[1])

    @property
    def width(self) -> int:
        """In latents."""
        return int(self.values.shape[2])

    def believed_s(self, doubted: Collection[Side]) -> NDArray[np.float64]:
        """When each latent was seen, by anybody but these sources. [height, panorama]"""
        theirs = np.repeat([source in doubted for source in self.sources], TILE_COLUMNS)
        seen_s: NDArray[np.float64] = np.where(theirs, NEVER, self.seen_s)
        return seen_s

    def ages_s(self, now_s: float, doubted: Collection[Side] = ()) -> NDArray[np.float64]:
        """How long ago each latent was seen; infinity where nobody has looked. [height, panorama]

        Args:
            now_s: On the twin's clock.
            doubted: Sources whose looking does not count.
        """
        ages: NDArray[np.float64] = np.maximum(now_s - self.believed_s(doubted), 0.0)
        return ages

    def tile_ages_s(self, now_s: float, doubted: Collection[Side] = ()) -> NDArray[np.float64]:
        """Mean age of each tile; infinity where some of it was never seen. [tiles]"""
        tiles = self.ages_s(now_s, doubted).reshape(self.height, -1, TILE_COLUMNS)
        means: NDArray[np.float64] = tiles.mean((0, 2))
        return means

    def refresh(
        self, observation: Feature, columns: Columns, *, source: Side, now_s: float, store: Store
    ) -> tuple[int, ...]:
        """Take what was seen, where it was seen for sure and later than what there is.

        Args:
            observation: As it came, with its age and where it saw. [latent_channels, height, columns]
            columns: Of the panorama, that it shows.
            source: Whose it is.
            now_s: On the twin's clock; the observation is older by its age.
            store: Where the tiles are kept.

        Returns:
            The tiles that it has changed.

        Raises:
            TwinError: If it is of another shape, or shows columns that are not there.
        """
        self._check(observation, columns)
        at = np.asarray(columns, int)
        seen = observation.confidence
        sure = np.ones((self.height, len(at)), bool) if seen is None else seen >= SURE
        seen_s = now_s - observation.age_s
        newer = sure & (self.seen_s[:, at] < seen_s)
        if not newer.any():
            return ()
        # As it is kept, so that what is read back is what was there.
        kept = np.clip(np.round(observation.values / _STEP), -127, 127) * np.float32(_STEP)
        self.values[:, :, at] = np.where(newer, kept, self.values[:, :, at])
        self.seen_s[:, at] = np.where(newer, seen_s, self.seen_s[:, at])
        tiles = tuple(sorted({int(c) // TILE_COLUMNS for c in at[newer.any(0)]}))
        for tile in tiles:
            self.sources[tile] = source
        self.revision = store.apply([self._update(tile) for tile in tiles], now_s=now_s)
        return tiles

    def forget(self, *, store: Store, now_s: float) -> None:
        """Let go of all that was seen, as it no longer looks like that; it stays in the history."""
        self.values[:] = 0
        self.seen_s[:] = NEVER
        self.sources = [None] * len(self.sources)
        known = store.entities("tile")
        if known:
            self.revision = store.apply(
                [Update(id=tile.id, remove=True) for tile in known], now_s=now_s
            )

    def recall(self, window: range, *, now_s: float) -> Feature:
        """What the twin remembers of a window, as a mechanism takes it.

        Returns:
            An observation as old as what was seen of it is in the mean. [latent_channels, height, window]
        """
        part = slice(window.start, window.stop)
        ages = self.ages_s(now_s)[:, part]
        there = np.isfinite(ages)
        return Feature(
            kind="observation",
            values=self.values[:, :, part].copy(),
            confidence=None if there.all() else there.astype(np.float32),
            age_s=float(ages[there].mean()) if there.any() else 0.0,
        )

    def picture(self, models: Models) -> NDArray[np.uint8]:
        """The panorama. RGB [8 * height, 8 * panorama, 3]"""
        image: NDArray[np.uint8] = models.decode(self.values[None])[0]
        return image

    def _check(self, observation: Feature, columns: Columns) -> None:
        shape, wanted = np.shape(observation.values), (LATENT_CHANNELS, self.height, len(columns))
        if shape != wanted:
            raise TwinError(
                f"the observation is {shape}, the replica takes {wanted} of {len(columns)} columns; "
                "give what one camera of this panorama saw"
            )
        if len(columns) and not 0 <= min(columns) <= max(columns) < self.width:
            raise TwinError(
                f"the observation shows columns {min(columns)} to {max(columns)}, the replica has 0 to "
                f"{self.width - 1}; move the camera or widen the replica"
            )

    def _update(self, tile: int) -> Update:
        part = slice(tile * TILE_COLUMNS, (tile + 1) * TILE_COLUMNS)
        steps = np.round(self.values[:, :, part] / _STEP).astype(np.int8)
        source = self.sources[tile]
        return Update(
            id=f"tile/{tile}",
            kind="tile",
            reported={
                "latents": steps.tobytes(),
                "seen_s": self.seen_s[:, part].astype("<f8").tobytes(),
                "source": None if source is None else str(source),
                "height": self.height,
            },
        )

    def _take(self, entity: Entity) -> None:
        number = int(entity.id.removeprefix("tile/"))
        reported = entity.reported
        if number >= len(self.sources) or reported["height"] != self.height:
            raise TwinError(
                f"the store has {entity.id} of {reported['height']} rows, the replica has "
                f"{len(self.sources)} tiles of {self.height}; open it with the panorama it was made of"
            )
        part = slice(number * TILE_COLUMNS, (number + 1) * TILE_COLUMNS)
        shape = (LATENT_CHANNELS, self.height, TILE_COLUMNS)
        steps = np.frombuffer(reported["latents"], np.int8).reshape(shape)
        self.values[:, :, part] = steps * np.float32(_STEP)
        self.seen_s[:, part] = np.frombuffer(reported["seen_s"], "<f8").reshape(shape[1:])
        self.sources[number] = Side(reported["source"]) if reported.get("source") else None
