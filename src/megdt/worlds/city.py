"""The city: radio by rays through a model of streets and houses, with Sionna RT.

Sionna RT compiles its kernels with LLVM: beside the extra `rt` it needs Debian's libllvm15 or
libllvm19. It is imported when rays are traced, so that all else works without it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdt.errors import MissingExtraError, WorldError

Floats = NDArray[np.float64]

_UE_M = 1.5
_LEAST_GAIN = 1e-15
"""No receiver hears less. What rays leave below that is chance: a few strays that bent often."""


@dataclass(frozen=True, kw_only=True)
class TracedMap:
    """Path gain over a square of ground around a station."""

    gain_db: Floats
    """nan where no ray came: inside houses, or too far behind them (below -150 dB). [rows along y, columns along x]"""
    station_m: tuple[float, float]
    """In the middle of the square."""
    cell_m: float

    @property
    def centres_m(self) -> Floats:
        """Of the cells, as places. [rows, columns, 2]"""
        rows, columns = self.gain_db.shape
        x = (np.arange(columns) + 0.5 - columns / 2) * self.cell_m + self.station_m[0]
        y = (np.arange(rows) + 0.5 - rows / 2) * self.cell_m + self.station_m[1]
        return np.stack(np.meshgrid(x, y), -1)

    def gain_at_db(self, places_m: NDArray[np.floating[Any]]) -> Floats:
        """Gain of the cell that each place is in; nan outside and where no ray came. [places]

        Args:
            places_m: [places, 2]
        """
        cell = np.floor((places_m - self.station_m) / self.cell_m).astype(int)
        column, row = (cell + np.array(self.gain_db.shape[::-1]) // 2).T
        inside = (row >= 0) & (row < len(self.gain_db))
        inside &= (column >= 0) & (column < self.gain_db.shape[1])
        found = np.full(len(places_m), math.nan)
        found[inside] = self.gain_db[row[inside], column[inside]]
        return found


@dataclass(frozen=True, kw_only=True)
class City:
    """One station in a scene of Sionna RT.

    Args:
        scene: Of those that come with Sionna RT, such as "munich", "florence", "san_francisco".
        station_m: Place and height of the base station.
        carrier_frequency_hz: Of the rays.
        material: Of every surface, by its name in the scene; the scene's own where left out. A
            twin that knows the houses and not what they are made of has one for all.
    """

    scene: str = "munich"
    station_m: tuple[float, float, float] = (8.5, 21.0, 27.0)
    carrier_frequency_hz: float = 3.5e9
    material: str | None = None

    def trace(
        self,
        *,
        extent_m: float = 600.0,
        cell_m: float = 5.0,
        max_depth: int = 5,
        diffraction: bool = True,
        rays: int = 2_000_000,
        rng_seed: int = 1,
    ) -> TracedMap:
        """Trace rays to the ground and gather what arrives in each cell.

        Args:
            extent_m: Side of the square around the station; whole pairs of cells.
            cell_m: Side of a cell.
            max_depth: How often a ray may be reflected or diffracted.
            diffraction: Whether rays bend around edges.
            rays: That leave the station.
            rng_seed: Of their directions.

        Raises:
            MissingExtraError: If Sionna RT or LLVM is not installed.
            WorldError: If there is no such scene or material, or the square has no whole cells.

        References:
            Hoydis et al., arXiv:2303.11103; Aoudia et al., arXiv:2504.21719 (radio maps).
        """
        cells = round(extent_m / cell_m) if cell_m > 0 and math.isfinite(extent_m) else 0
        if cells < 2 or cells % 2 or not math.isclose(cells * cell_m, extent_m):
            raise WorldError(
                f"a square of {extent_m:g} m has no even number of cells of {cell_m:g} m; choose "
                "an extent that is a multiple of two cells"
            )
        rt = _sionna_rt()
        files = {name for name in dir(rt.scene) if not name.startswith("_")}
        if self.scene not in files:
            raise WorldError(f"Sionna RT has no scene {self.scene!r}; munich is one that it has")
        scene = rt.load_scene(getattr(rt.scene, self.scene))
        scene.frequency = self.carrier_frequency_hz
        if self.material is not None:
            if self.material not in scene.radio_materials:
                raise WorldError(
                    f"{self.scene} has no {self.material!r}, it has "
                    f"{', '.join(scene.radio_materials)}; choose one of these"
                )
            for thing in scene.objects.values():
                thing.radio_material = self.material
        antenna = rt.PlanarArray(num_rows=1, num_cols=1, pattern="iso", polarization="V")
        scene.tx_array = scene.rx_array = antenna
        scene.add(rt.Transmitter("station", position=list(self.station_m)))
        traced = rt.RadioMapSolver()(
            scene,
            center=[*self.station_m[:2], _UE_M],
            orientation=[0, 0, 0],
            size=[extent_m, extent_m],
            cell_size=(cell_m, cell_m),
            samples_per_tx=rays,
            max_depth=max_depth,
            refraction=False,
            diffraction=diffraction,
            seed=rng_seed,
        )
        gain = np.asarray(np.array(traced.path_gain)[0], np.float64)
        gain_db = np.full(gain.shape, math.nan)
        came = gain > _LEAST_GAIN
        gain_db[came] = 10 * np.log10(gain[came])
        return TracedMap(gain_db=gain_db, station_m=self.station_m[:2], cell_m=cell_m)


def _sionna_rt() -> Any:
    try:
        from sionna import rt
    except (ImportError, OSError, RuntimeError, AttributeError) as error:  # LLVM fails variously
        raise MissingExtraError(
            f"the city needs Sionna RT and LLVM ({error}); pip install 'megdt[rt]' and "
            "apt-get install libllvm15"
        ) from error
    return rt
