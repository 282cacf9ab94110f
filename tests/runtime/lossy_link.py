"""A bad network between two network namespaces: delay, jitter, loss, reordering and a blackout.

The parameters are those of Linux netem, and so is what they mean, for each direction by itself:
every packet is late by a time drawn around the delay, so that later ones overtake it. It is done here
with a TUN device in each namespace, which a kernel without the netem module has too. What crosses are
the real packets of the kernel's TCP.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ADDRESSES = ("10.77.0.1", "10.77.0.2")
NAMES = (f"megdt-ue-{os.getpid()}", f"megdt-es-{os.getpid()}")
CLONE_NEWNET, TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x40000000, 0x400454CA, 0x0001, 0x1000
QUEUED = 1000
"""Packets under way in one direction, and further ones are lost: as netem's limit."""


@dataclass
class LossyLink:
    """Carries packets from each namespace to the other until it is stopped.

    Args:
        delay_s: Mean, one way.
        jitter_s: A delay is drawn uniformly from delay_s - jitter_s to delay_s + jitter_s.
        loss: Share of packets that do not arrive.
        rng_seed: Of delays and losses.
    """

    delay_s: float
    jitter_s: float
    loss: float
    rng_seed: int = 0
    sent: int = 0
    lost: int = 0
    overtaken: int = 0
    _dark_until_s: float = 0.0
    _stopped: threading.Event = field(default_factory=threading.Event)

    def black_out(self, seconds: float) -> None:
        """Nothing arrives from now on for so long."""
        self._dark_until_s = time.monotonic() + seconds

    def stop(self) -> None:
        self._stopped.set()

    def carry(self, devices: tuple[int, int]) -> None:
        """Until it is stopped.

        Args:
            devices: TUN devices of the two ends, as `open_tun` gives them.
        """
        rng = random.Random(self.rng_seed)
        under_way: list[tuple[float, int, bytes, int]] = []
        last_due_s = dict.fromkeys(devices, 0.0)
        other = dict(zip(devices, reversed(devices), strict=True))
        while not self._stopped.is_set():
            wait_s = max(under_way[0][0] - time.monotonic(), 0.0) if under_way else 0.1
            for device in select.select(devices, (), (), min(wait_s, 0.1))[0]:
                packet, now_s = os.read(device, 65536), time.monotonic()
                self.sent += 1
                dark = now_s < self._dark_until_s
                if rng.random() < self.loss or dark or len(under_way) >= QUEUED:
                    self.lost += 1
                    continue
                due_s = now_s + self.delay_s + self.jitter_s * rng.uniform(-1, 1)
                self.overtaken += due_s < last_due_s[device]
                last_due_s[device] = max(due_s, last_due_s[device])
                heapq.heappush(under_way, (due_s, self.sent, packet, other[device]))
            while under_way and under_way[0][0] <= time.monotonic():
                _, _, packet, target = heapq.heappop(under_way)
                if time.monotonic() >= self._dark_until_s:
                    os.write(target, packet)
                else:
                    self.lost += 1


def missing() -> str:
    """What this machine lacks for such a link; empty if nothing."""
    if not sys.platform.startswith("linux"):
        return "needs Linux"
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun"
    try:
        subprocess.run(["ip", "netns", "list"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return "needs ip with network namespaces; apt-get install iproute2"
    return ""


def enter(name: str) -> None:
    """From now on, sockets and devices of this thread are of a namespace."""
    with Path(f"/run/netns/{name}").open() as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"cannot enter network namespace {name}: {os.strerror(number)}")


def open_tun(name: str, address: str) -> int:
    """A TUN device in a namespace; packets of the other end are read from it and written to it."""

    def make() -> None:
        enter(name)
        device = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"tun0", IFF_TUN | IFF_NO_PI))
        made.append(device)

    made: list[int] = []
    # A thread of its own, so that no other one changes its namespace.
    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    for told in (f"addr add {address}/30 dev tun0", "link set tun0 up", "link set lo up"):
        subprocess.run(["ip", "-n", name, *told.split()], check=True)
    return made[0]


@contextmanager
def lossy_link(link: LossyLink) -> Iterator[tuple[str, str]]:
    """The link between two namespaces of these names, with `ADDRESSES`; both are gone afterwards."""
    devices: list[int] = []
    carrying = None
    try:
        for name, address in zip(NAMES, ADDRESSES, strict=True):
            subprocess.run(["ip", "netns", "add", name], check=True)
            devices.append(open_tun(name, address))
        carrying = threading.Thread(target=link.carry, args=(tuple(devices),), daemon=True)
        carrying.start()
        yield NAMES
    finally:
        link.stop()
        if carrying is not None:
            carrying.join(5)
        for device in devices:
            os.close(device)
        for name in NAMES:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
