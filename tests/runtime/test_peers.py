"""Peers that do not keep to the protocol are refused in one line, whatever they send."""

from __future__ import annotations

import time
import tracemalloc

import msgspec
import numpy as np
import pytest

from megdt.errors import (
    MessageError,
)
from megdt.records import Side
from megdt.runtime import messages
from megdt.runtime.events import Closed
from megdt.runtime.messages import decode, encode
from tests.runtime.fuzz import feed_sessions
from tests.runtime.golden import EXAMPLES, REFUSED
from tests.runtime.wire import (
    BUNDLE,
    LEDGER,
    SMALL,
    WAITS,
    begin,
    make_es,
    make_ue,
    make_wire,
)

FEATURE = messages.Feature(
    seq=2, key="k", source="s", to_side=Side.ES, kind="seed", payload_bytes=8
)
EIGHT = memoryview(bytes(8))


@pytest.mark.parametrize(
    ("sent", "told_so"),
    [
        ([messages.Welcome(bundle=BUNDLE, session="s", credit=1)], "welcome message comes to the ES"),
        ([messages.Bye(seq=2)], "message 2 comes after 0; expected 1"),
        ([messages.Bye()], "message 0 comes after 0"),
        ([messages.Ack(received=7, credit=0)], "acknowledges message 7, and 0 were sent"),
        ([messages.Result(seq=1, key="k", ledger=LEDGER)], "result message comes to the ES"),
        ([EXAMPLES["hello"]], "hello message comes to the ES in phase open"),
        (
            [messages.Bye(seq=1), messages.Request(seq=2, key="k", deadline_s=1, tables={})],
            "request k comes after a bye",
        ),
        ([messages.Chunk(seq=1, number=1, offset=0, data=EIGHT)], "when none is under way"),
        (
            ["ask", FEATURE, msgspec.structs.replace(FEATURE, seq=3, number=2)],
            "send one after the other",
        ),
        (["ask", msgspec.structs.replace(FEATURE, number=2)], "feature 2 comes after 0"),
        (["ask", msgspec.structs.replace(FEATURE, payload_bytes=2**32)], "has 4294967296 bytes"),
        (
            ["ask", FEATURE, messages.Chunk(seq=3, number=1, offset=4, data=EIGHT[:4])],
            "chunk of 4 bytes at 4 of feature 1, of which 0 of 8 bytes are here",
        ),
        (
            ["ask", FEATURE, messages.Chunk(seq=3, number=1, offset=0, data=memoryview(bytes(9)))],
            "chunk of 9 bytes at 0",
        ),
        (["ask", FEATURE, messages.Chunk(seq=3, number=1, offset=0, data=EIGHT[:0])], "of 0 bytes"),
        (["ask", FEATURE, messages.Chunk(seq=3, number=2, offset=0, data=EIGHT)], "of feature 2"),
        (
            [
                "ask",
                msgspec.structs.replace(FEATURE, payload_bytes=0, symbols=2, dtype="float32"),
                messages.Chunk(
                    seq=3, number=1, offset=0,
                    data=memoryview(np.array([1, np.nan], "<f4").tobytes()),
                ),
            ],
            "symbols that are infinite or no numbers",
        ),
        (
            ["ask", *[messages.State(seq=n + 2, key="k", stage=f"s{n}", hash="0" * 16)
              for n in range(65)]],
            "names more than 64 states",
        ),
    ],
)  # fmt: skip
def test_what_is_out_of_place_ends_the_session_in_one_line(
    sent: list[messages.Message | str], told_so: str
) -> None:
    wire = make_wire()
    wire.connect()
    wire.carry()
    assert wire.es is not None
    ask = messages.Request(seq=1, key="k", deadline_s=5, tables=WAITS)
    tracemalloc.start()
    events = [
        event
        for message in sent
        for event in wire.es.receive(encode(ask if isinstance(message, str) else message), 0)
    ]
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 200_000
    assert isinstance(events[-1], Closed)
    assert isinstance(events[-1].error, MessageError)
    assert told_so in str(events[-1].error)
    frame = wire.es.next_frame(0)
    assert frame is not None
    last = decode(frame)
    assert isinstance(last, messages.Error)
    assert last.message == str(events[-1].error)
    assert wire.es.next_frame(0) is None
    assert wire.es.receive(encode(messages.Ping(number=1)), 0) == []


@pytest.mark.parametrize("name", REFUSED)
def test_a_frame_that_is_no_message_ends_a_session(name: str) -> None:
    wire = begin(make_wire(SMALL))
    wire.connect()
    wire.carry(frames=6)
    assert wire.es is not None
    for session in (wire.es, wire.ue.session):
        started = time.perf_counter()
        events = session.receive(REFUSED[name], 0)
        assert time.perf_counter() - started < 0.05
        assert isinstance(events[-1], Closed)
        assert isinstance(events[-1].error, MessageError)
        assert session.phase == "closed"
    session, (closed,) = make_es().accept(REFUSED[name], 0, owner="ue-1", new_id="s")
    assert isinstance(closed, Closed)
    assert session.next_frame(0) is not None


def test_frames_that_were_changed_never_surprise_a_session() -> None:
    tracemalloc.start()
    came, closed = feed_sessions(1000, rng_seed=1)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert came / 10 < closed < came
    assert peak_bytes < 2_000_000


def test_an_error_of_the_peer_is_told_without_its_tricks() -> None:
    session = make_ue()
    session.connect(0)
    error = messages.Error(code="full", message="come\x1b[2J later", retry_after_s=3.0)
    (closed,) = session.receive(encode(error), 0)
    assert isinstance(closed, Closed)
    assert closed.error is not None
    assert str(closed.error) == "come?[2J later"
    assert closed.error.retry_after_s == 3
    assert session.next_frame(0) is None
