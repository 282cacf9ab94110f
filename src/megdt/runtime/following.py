"""A twin that is followed beside an edge server, for those who watch: round after round, told as events.

The world is simulated and may be changed while it is followed; the twin has to find that out.
"""

from __future__ import annotations

import asyncio
import io
import logging
import threading
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from megdt.errors import MegdtError, TwinError
from megdt.runtime.feed import Feed
from megdt.scenario.twin import TwinScenario
from megdt.site import SimulatedSite, open_twin
from megdt.twin.loop import Round, run_round
from megdt.twin.store import Store, open_store
from megdt.twin.twin import Twin, begin_s
from megdt.watching import as_json, keep_scenario
from megdt.worlds.scene import SKIES, WEATHERS

if TYPE_CHECKING:
    from megdt.models.bundle import Bundle

KEPT = 120
"""Rounds that can be looked back at."""

RANGES = {"extra_loss_db": (0.0, 40.0), "speed_m_s": (0.0, 30.0)}
"""What of the world may be changed, and how far."""

log = logging.getLogger("megdt.twin")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A round, as it is looked back at."""

    table: dict[str, Any]
    replica: bytes
    """Picture, WebP."""
    world: bytes


class Follower:
    """Follows a twin in a thread of its own.

    Args:
        scenario: What is followed.
        bundle: Sub-models.
        feed: Told of each round, as `twin`.
        where: Of the twin's store; in memory where left out.
        pause_s: Between two rounds.
        rounds: After which it stops; None for never.
    """

    def __init__(
        self, scenario: TwinScenario, bundle: Bundle, feed: Feed, *, where: str = ":memory:",
        pause_s: float = 1.0, rounds: int | None = None,
    ) -> None:  # fmt: skip
        self.scenario, self._bundle, self._feed = scenario, bundle, feed
        self._where, self._pause_s, self._rounds = where, pause_s, rounds
        self.seen: deque[Seen] = deque(maxlen=KEPT)
        """The last rounds, the newest last."""
        self._wanted: TwinScenario | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin. Called where the event loop runs."""
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(
            target=self._follow, args=(loop,), name="megdt-twin", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End after the round that runs."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(30)

    def world(self) -> dict[str, Any]:
        """How the world is, or is about to be."""
        now = self._wanted or self.scenario
        return {
            "extra_loss_db": now.radio.extra_loss_db,
            "speed_m_s": now.ues.speed_m_s,
            "sky": now.scene.sky,
            "weather": now.scene.weather,
        }

    def change(
        self, *, extra_loss_db: float | None = None, speed_m_s: float | None = None,
        sky: str | None = None, weather: str | None = None,
    ) -> None:  # fmt: skip
        """Change the world, from the next round on.

        Raises:
            TwinError: If it cannot be so.
        """
        given = {"extra_loss_db": extra_loss_db, "speed_m_s": speed_m_s}
        for name, value in given.items():
            low, high = RANGES[name]
            if value is not None and not low <= value <= high:
                raise TwinError(f"{name} is {value:g}, it goes from {low:g} to {high:g}")
        for name, word, known in (("sky", sky, SKIES), ("weather", weather, WEATHERS)):
            if word is not None and word not in known:
                raise TwinError(f"{name} is {word!r}, known: {', '.join(known)}")
        now = self._wanted or self.scenario
        self._wanted = replace(
            now,
            radio=now.radio
            if extra_loss_db is None
            else replace(now.radio, extra_loss_db=extra_loss_db),
            ues=now.ues if speed_m_s is None else replace(now.ues, speed_m_s=speed_m_s),
            scene=replace(
                now.scene, sky=sky or now.scene.sky, weather=weather or now.scene.weather
            ),
        )

    def _follow(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            with open_store(self._where) as store:
                twin, site = self._open(store)
                while not self._stop.is_set() and self._rounds != len(self.seen):
                    if self._wanted is not None:
                        self.scenario, self._wanted = self._wanted, None
                        twin, site = self._open(store)
                    done = run_round(twin, site, refresh_bits=self.scenario.twin.refresh_bits)
                    self.seen.append(_see(done, twin, site, self.world()))
                    loop.call_soon_threadsafe(self._feed.tell, "twin", self.seen[-1].table)
                    self._stop.wait(self._pause_s)
        except MegdtError as error:
            log.error("the twin is no longer followed", extra={"reason": str(error)})
        except RuntimeError:
            log.info("the server has gone while a round ran")

    def _open(self, store: Store) -> tuple[Twin, SimulatedSite]:
        start_s = begin_s(store, self.scenario.twin.interval_s)
        site = SimulatedSite(self.scenario, self._bundle, start_s=start_s)
        if self._where != ":memory:":
            keep_scenario(store, self.scenario)
        return open_twin(self.scenario, site, store, self._bundle), site


def _see(done: Round, twin: Twin, site: SimulatedSite, world: dict[str, Any]) -> Seen:
    ages = twin.replica.tile_ages_s(done.now_s)
    place = site.place
    ues = []
    for entity in twin.store.entities("ue"):
        told = entity.reported
        heard = [snr for snr in told.get("heard", {}).get("snr_db", []) if snr is not None]
        ues.append(
            {
                "name": f"UE{entity.id.partition('/')[2]}",
                "x_m": told["position_m"][0],
                "snr_db": max(heard, default=None),
                "monitor": entity.desired.get("monitor", {}).get("status", "trusted"),
            }
        )
    known = np.isfinite(twin.replica.seen_s).all(0).repeat(8)
    off = twin.picture[:, known].astype(float) - site.panorama[:, known]
    table = {
        **as_json([done])[0],
        "world": world,
        "ues": ues,
        "width_m": twin.replica.width / place.columns_per_m,
        "origin_m": place.origin_m,
        "tile_ages_s": [None if not np.isfinite(age) else float(age) for age in ages],
        "bits_up": sum(upload.bits for upload in done.uploads),
        "replica_error": float(np.sqrt((off**2).mean())) if off.size else None,
    }
    return Seen(table=table, replica=_webp(twin.picture), world=_webp(site.panorama))


def _webp(picture: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "WebP", quality=80)
    return file.getvalue()
