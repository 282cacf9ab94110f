"""No more is sent than was granted, and what waits is bounded."""

from __future__ import annotations

import random
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megdt.errors import (
    MessageError,
    SessionError,
)
from megdt.records import Packet, Side
from megdt.runtime import messages
from megdt.runtime.events import Answered, Closed, Failed, FeatureArrived
from megdt.runtime.messages import decode, encode
from tests.runtime.wire import LEDGER, SMALL, TABLES, WAITS, EsApp, begin, make_es, make_wire


@settings(max_examples=150, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 1000), min_size=1, max_size=12),
    chunk_bytes=st.integers(1, 400),
    rng_seed=st.integers(0, 2**32),
    cuts=st.booleans(),
)
def test_no_more_is_ever_sent_than_was_granted(
    sizes: list[int], chunk_bytes: int, rng_seed: int, cuts: bool
) -> None:
    rng = random.Random(rng_seed)
    limits = replace(SMALL, chunk_bytes=chunk_bytes, queue_bytes=50_000)
    wire = make_wire(limits)
    granted = sent = 0
    seen: set[int] = set()

    def watch(to: str, frame: bytes) -> None:
        nonlocal granted, sent
        message = decode(frame)
        if to == "UE" and isinstance(message, messages.Welcome | messages.Ack):
            assert message.credit >= granted
            granted = message.credit
        if to == "ES" and isinstance(message, messages.Chunk) and message.seq not in seen:
            seen.add(message.seq)
            sent += len(message.data)
            assert sent <= granted

    wire.watch = watch
    held: list[int] = []
    came: list[bytes] = []

    def keep(events: list[Any], session: Any, now_s: float) -> None:
        for event in events:
            if isinstance(event, FeatureArrived):
                held.append(event.size_bytes)
                came.append(event.content.payload)
        assert sum(held) <= session.held_bytes <= limits.window_bytes

    wire.app.take = keep  # type: ignore[method-assign,assignment]
    wire.ue.session.ask("k", WAITS, deadline_s=500, now_s=0)
    payloads = [rng.randbytes(size) for size in sizes]
    for number, payload in enumerate(payloads):
        wire.ue.session.send_feature(
            "k", Packet(payload=payload), source=f"s{number}", to_side=Side.ES, kind="seed"
        )
    wire.connect()
    while len(came) < len(payloads):
        if cuts and rng.random() < 0.1:
            wire.carry(wire.carried + rng.randrange(6))
            wire.cut()
            wire.connect()
        wire.carry(frames=rng.randrange(6))
        if held and wire.es is not None and rng.random() < 0.5:
            wire.es.release(held.pop(rng.randrange(len(held))), wire.now_s)
        wire.now_s += rng.choice((0, 0.01, 0.1))
        wire.es and wire.app.take(wire.es.tick(wire.now_s), wire.es, wire.now_s)
    assert came == payloads


def test_a_chunk_beyond_the_credit_is_refused() -> None:
    wire = make_wire(SMALL)
    wire.connect()
    wire.carry()
    assert wire.es is not None
    sent = [messages.Request(seq=1, key="k", deadline_s=5, tables=WAITS)]
    for number, size in ((1, 600), (2, 401)):
        sent.append(
            messages.Feature(
                seq=2 * number, key="k", number=number, source=f"s{number}", to_side=Side.ES,
                kind="seed", payload_bytes=size,
            )
        )  # fmt: skip
        data = memoryview(bytes(size))
        sent.append(messages.Chunk(seq=2 * number + 1, number=number, offset=0, data=data))
    events = [event for message in sent for event in wire.es.receive(encode(message), 0)]
    assert isinstance(events[-1], Closed)
    error = events[-1].error
    assert isinstance(error, MessageError)
    assert error.code == "credit"
    assert "chunk brings the bytes sent to 1001, 1000 were granted" in str(error)


def test_a_slow_reader_costs_bounded_memory_and_no_one_else() -> None:
    limits = replace(
        SMALL, frame_bytes=2**16, chunk_bytes=2**14, window_bytes=2**17,
        queue_bytes=2**20, replay_bytes=2**18, kept_bytes=2**20, requests=1000,
    )  # fmt: skip
    app = EsApp(make_es(limits), size_bytes=2**16)
    slow, quick = make_wire(limits, app), make_wire(limits, app, owner="ue-2")
    for wire in (slow, quick):
        wire.connect()
        wire.carry()
    tracemalloc.start()
    for number in range(200):
        begin(slow, f"k{number}", TABLES)
        slow.carry(both=False)  # it asks and asks, and reads nothing
        app.events.clear()
        assert slow.es is not None
        assert slow.es.queued_bytes <= limits.queue_bytes
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Asked for 13 MB: a queue, what is kept of answers, and the requests themselves.
    assert peak_bytes < 5 * 2**20
    begin(quick, "mine", TABLES)
    quick.carry()
    assert [e.key for e in quick.ue.of(Answered)] == ["mine"]
    slow.carry()
    assert {e.error.code for e in slow.ue.of(Failed)} == {"slow"}
    assert len(slow.ue.of(Answered)) >= 10
    ask_again = slow.ue.of(Failed)[-1].key
    begin(slow, ask_again, TABLES)
    slow.carry()
    assert slow.ue.of(Answered)[-1].key == ask_again
    assert app.executed[ask_again] == 1


def test_a_peer_that_never_reads_refusals_is_given_up() -> None:
    wire = make_wire(replace(SMALL, queue_frames=50))
    wire.connect()
    wire.carry()
    assert wire.es is not None
    for seq in range(1, 200):
        request = messages.Request(seq=seq, key=f"k{seq}", deadline_s=1e6, tables=TABLES)
        wire.es.receive(encode(request), 0)
    assert wire.es.error is not None
    assert wire.es.error.code == "slow"


def test_pings_that_pile_up_are_answered_once() -> None:
    wire = make_wire()
    wire.connect()
    wire.carry()
    assert wire.es is not None
    for number in range(1000):
        wire.es.receive(encode(messages.Ping(number=number)), 0)
    assert wire.es.next_frame(0) == encode(messages.Pong(number=999))
    assert wire.es.next_frame(0) is None


def test_a_ue_holds_back_when_too_much_waits() -> None:
    wire = make_wire(SMALL)
    wire.ue.session.ask("k", WAITS, deadline_s=5, now_s=0)

    def send(source: str) -> None:
        feature = Packet(payload=bytes(1000))
        wire.ue.session.send_feature("k", feature, source=source, to_side=Side.ES, kind="seed")

    for source in "abcd":
        send(source)
    with pytest.raises(SessionError, match="wait until the other end has taken some") as caught:
        send("e")
    assert caught.value.code == "slow"
    assert wire.ue.session.queued_bytes <= SMALL.queue_bytes


def test_a_feature_larger_than_the_peer_takes_is_not_sent() -> None:
    wire = make_wire(SMALL)
    wire.connect()
    wire.carry()
    wire.ue.session.ask("k", WAITS, deadline_s=5, now_s=0)
    with pytest.raises(SessionError, match="feature of 1001 bytes is beyond the 1000"):
        wire.ue.session.send_feature(
            "k", Packet(payload=bytes(1001)), source="s", to_side=Side.ES, kind="seed"
        )


def test_what_is_thrown_away_makes_room_for_what_comes() -> None:
    wire = make_wire(SMALL)
    wire.app.take = lambda *_: None  # type: ignore[method-assign,assignment]  # it releases nothing
    session = wire.ue.session
    for key, sizes in (("m", ()), ("k", (900, 950))):
        session.ask(key, WAITS, deadline_s=50, now_s=0)
        for size in sizes:
            upload = Packet(payload=bytes(size))
            session.send_feature(key, upload, source=str(size), to_side=Side.ES, kind="seed")
    wire.connect()
    wire.carry()
    wire.pass_time(1)
    assert wire.es is not None
    assert wire.es.held_bytes == 1000  # a feature, and a fragment of the second
    generation = wire.app.sessions.generations.get("ue-1", "k")
    assert generation is not None
    generation.finish("delivered", LEDGER)
    wire.carry()
    session.send_feature("m", Packet(payload=bytes(100)), source="s", to_side=Side.ES, kind="seed")
    wire.carry()
    wire.pass_time(1)
    wire.carry()
    assert session.queued_bytes == 0


def test_what_comes_twice_is_passed_over() -> None:
    wire = make_wire(SMALL)
    wire.connect()
    wire.carry()
    assert wire.es is not None
    request = encode(messages.Request(seq=1, key="k", deadline_s=5, tables=WAITS))
    for _ in range(2):  # of a connection that was replaced, say
        wire.app.take(wire.es.receive(request, 0), wire.es, 0)
    assert wire.es.phase == "open"
    assert len(wire.app.sessions.generations.running) == 1
