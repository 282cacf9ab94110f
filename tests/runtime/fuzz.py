"""Frames that were changed at random, and what becomes of many of them.

python -m tests.runtime.fuzz [--frames 100000]    tells time and memory a frame
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import msgspec

from megdt.errors import MessageError
from megdt.runtime.messages import decode, encode
from megdt.runtime.session import Session
from tests.runtime.golden import EXAMPLES, REFUSED
from tests.runtime.wire import SMALL, begin, make_wire


def changed_frames(count: int, rng_seed: int) -> Iterator[bytes]:
    """Frames with some bytes changed, taken out, doubled or joined to another's, and mere noise."""
    rng = random.Random(rng_seed)
    known = [encode(example) for example in EXAMPLES.values()] + list(REFUSED.values())
    known = [frame for frame in known if frame]
    leads = bytes([*range(0xC0, 0xE0), 0x8F, 0x9F, 0xBF, 0xFF, 0x00])
    for _ in range(count):
        frame = bytearray(rng.choice(known))
        for _ in range(rng.choice((1, 1, 1, 3))):
            at = rng.randrange(len(frame) + 1)
            match rng.choice((0, 0, 0, 0, 1, 2, 3, 4, 5)):
                case 0:
                    frame[at : at + 1] = bytes([rng.randrange(256)])
                case 1:
                    frame[at : at + 1] = bytes([rng.choice(leads)])
                case 2:
                    del frame[at : at + rng.randrange(1, 9)]
                case 3:
                    frame[at:at] = rng.randbytes(rng.randrange(1, 9))
                case 4:
                    frame[at:] = rng.choice(known)[-at - 1 :]
                case _:
                    frame = bytearray(rng.randbytes(rng.randrange(64)))
        yield bytes(frame)


def out_of_place(rng: random.Random, session: Session) -> bytes:
    """A message that is well made, numbered as the next, and mostly not one for now."""
    changes: dict[str, Any] = {
        "seq": session._receiver.received + 1,
        "key": rng.choice(("k", "k", "other")),
        "number": rng.choice((1, 2, session._receiver._numbers + rng.randrange(2))),
        "offset": rng.choice((0, 5, session._receiver._came)),
        "received": rng.choice((0, session._sender.sent)),
    }
    message = rng.choice(list(EXAMPLES.values()))
    fields = set(message.__struct_fields__) & changes.keys()
    return encode(msgspec.structs.replace(message, **{name: changes[name] for name in fields}))


def feed_sessions(count: int, rng_seed: int) -> tuple[int, int]:
    """Give changed and misplaced frames to both ends of sessions somewhere in their course.

    Returns:
        How many frames came to a session that was not closed, and how many have closed one. None
        may raise.
    """
    frames, rng = changed_frames(count, rng_seed), random.Random(rng_seed)
    came = closed = 0
    while came < count:
        wire = begin(make_wire(SMALL))
        wire.connect()
        wire.carry(frames=rng.randrange(2, 30))
        sessions = [wire.ue.session] if wire.es is None else [wire.ue.session, wire.es]
        for session in sessions:
            for _ in range(10):
                changed = rng.random() < 0.2
                session.receive(next(frames) if changed else out_of_place(rng, session), 0)
                while session.next_frame(0) is not None:
                    pass
                session.tick(0)
                came += 1
                if session.phase == "closed":
                    closed += 1
                    break
    return came, closed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--rng-seed", type=int, default=0)
    arguments = parser.parse_args()
    taken, took_s = 0, []
    for frame in changed_frames(arguments.frames, arguments.rng_seed):
        started = time.perf_counter()
        with contextlib.suppress(MessageError):
            decode(frame)
            taken += 1
        took_s.append(time.perf_counter() - started)
    largest_bytes = 0
    tracemalloc.start()  # by itself, as it takes time
    for frame in changed_frames(arguments.frames, arguments.rng_seed):
        tracemalloc.reset_peak()
        before_bytes, _ = tracemalloc.get_traced_memory()
        with contextlib.suppress(MessageError):
            decode(frame)
        _, peak_bytes = tracemalloc.get_traced_memory()
        largest_bytes = max(largest_bytes, peak_bytes - before_bytes)
    tracemalloc.stop()
    came, closed = feed_sessions(arguments.frames, arguments.rng_seed)
    found = {
        "frames": arguments.frames,
        "still_messages": taken,
        "mean_us": round(1e6 * sum(took_s) / len(took_s), 1),
        "slowest_ms": round(1e3 * max(took_s), 2),
        "largest_allocation_kb": round(largest_bytes / 1e3, 1),
        "frames_to_sessions": came,
        "sessions_closed": closed,
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
