"""Both ends of sessions against each other, and against peers that do not keep to the protocol."""

from __future__ import annotations

import copy
import random
import time
import tracemalloc
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megdt.errors import (
    HandshakeError,
    MessageError,
    ResumeError,
    SessionError,
)
from megdt.records import Packet, Side
from megdt.runtime import messages
from megdt.runtime.contents import Content
from megdt.runtime.events import LinesArrived, StatesCompared
from megdt.runtime.limits import Limits
from megdt.runtime.messages import decode, encode
from tests.runtime.golden import EXAMPLES, REFUSED
from tests.runtime.test_messages import mutated
from tests.runtime.wire import (
    BUNDLE,
    LEDGER,
    SMALL,
    TABLES,
    WAITS,
    Answered,
    Cancelled,
    Closed,
    EsApp,
    Expired,
    Failed,
    FeatureArrived,
    Opened,
    Requested,
    Silent,
    UeApp,
    Wire,
    make_es,
    make_ue,
    make_wire,
)

UPLOAD = Packet(payload=bytes(range(250)))


def bits(content: Content) -> tuple[Any, ...]:
    """All that came, to the bit."""
    return tuple(
        (name, np.asarray(getattr(content, name)).tobytes())
        for name in ("payload", "symbols", "noise_power", "outcome", "among")
        if getattr(content, name, None) is not None
    )


def told(ue: UeApp) -> list[Any]:
    """What the UE has been told of its requests, in order."""
    found: list[Any] = []
    for event in ue.events:
        if isinstance(event, FeatureArrived):
            found.append((event.key, event.source, event.kind, bits(event.content)))
        elif isinstance(event, Answered | Failed | StatesCompared):
            found.append(event)
    return found


def begin(wire: Wire, key: str = "k", tables: messages.Tables = WAITS) -> Wire:
    """Ask, and send what the ES waits for."""
    session = wire.ue.session
    session.ask(key, tables, deadline_s=100, now_s=wire.now_s)
    if "plan" in tables:
        session.send_lines(key, LEDGER)
        session.tell_state(key, "fuse", b"12345678")
        session.send_feature(key, UPLOAD, source="encode", to_side=Side.ES, kind="seed")
    return wire


def uncut() -> Wire:
    wire = begin(make_wire(SMALL))
    wire.connect()
    wire.carry()
    return wire


def mend(wire: Wire) -> None:
    """Connect again, until all has come."""
    wire.connect()
    wire.carry()
    wire.pass_time(1)


# --- a request, and its cuts ---------------------------------------------------------------------


def test_a_request_is_answered() -> None:
    wire = uncut()
    assert wire.app.executed == {"k": 1}
    seed, observation = (content for _, _, content in wire.ue.features)
    assert seed.payload[:250] == UPLOAD.payload[::-1]
    assert observation.symbols is not None
    assert observation.symbols.dtype == np.complex64
    (answer,) = wire.ue.of(Answered)
    assert answer.ledger == LEDGER
    assert [e.ledger for e in wire.app.events if isinstance(e, LinesArrived)] == [LEDGER]
    assert wire.ue.session.phase == "open"
    assert wire.ue.session.asked == ()


@pytest.mark.parametrize("notices", [True, False], ids=["noticed", "unnoticed by the ES"])
def test_a_link_cut_after_any_frame_changes_nothing(notices: bool) -> None:
    whole = uncut()
    assert whole.carried > 25  # every chunk, and all around them
    for cut_after in range(whole.carried):
        wire = begin(make_wire(SMALL))
        wire.connect()
        assert not wire.carry(cut_after)
        if notices:
            wire.cut()
        else:
            wire.ue.session.cut(wire.now_s)
        mend(wire)
        assert told(wire.ue) == told(whole.ue), cut_after
        assert wire.app.executed == {"k": 1}, cut_after


def test_a_link_cut_again_and_again_changes_nothing() -> None:
    whole = uncut()
    rng = random.Random(0)
    for _ in range(100):
        wire = begin(make_wire(SMALL))
        wire.connect()
        cuts = 0
        while not wire.carry(wire.carried + rng.randrange(12)):
            wire.cut()
            wire.connect()
            cuts += 1
        wire.pass_time(1)
        assert cuts
        assert told(wire.ue) == told(whole.ue)
        assert wire.app.executed == {"k": 1}


def test_a_ue_that_is_killed_and_comes_back_gets_the_same_answer() -> None:
    whole = uncut()
    for cut_after in range(2, whole.carried):
        wire = begin(make_wire(SMALL))
        wire.connect()
        wire.carry(cut_after)
        wire.cut()
        again = begin(make_wire(SMALL, wire.app))
        again.connect()
        again.carry()
        again.pass_time(1)
        assert told(again.ue) == told(whole.ue), cut_after
        assert wire.app.executed == {"k": 1}, cut_after


def test_an_es_that_has_started_again_says_so_and_is_asked_again() -> None:
    wire = begin(make_wire(SMALL))
    wire.connect()
    wire.carry(12)
    wire.cut()
    wire.app = EsApp(make_es(SMALL))
    wire.connect()
    wire.carry()
    assert isinstance(wire.ue.session.error, ResumeError)
    assert "is not known here" in str(wire.ue.session.error)
    assert wire.ue.session.asked == ("k",)
    again = begin(make_wire(SMALL, wire.app))
    again.connect()
    again.carry()
    assert told(again.ue) == told(uncut().ue)


def test_a_session_is_kept_for_some_time_after_a_cut() -> None:
    for seconds, kept in ((SMALL.resume_s - 1, True), (SMALL.resume_s, False)):
        wire = begin(make_wire(SMALL))
        wire.connect()
        wire.carry(12)
        wire.cut()
        assert wire.app.sessions.wake_s == SMALL.resume_s
        wire.now_s += seconds
        wire.app.sessions.tick(wire.now_s)
        assert len(wire.app.sessions) == kept
        wire.ue.session._asked["k"] = 1000.0
        wire.connect()
        wire.carry()
        assert wire.ue.session.phase == ("open" if kept else "closed")


def test_what_the_peer_has_missed_and_is_not_kept_cannot_be_resumed() -> None:
    wire = begin(make_wire(SMALL))
    wire.connect()
    wire.carry(frames=14)
    old = copy.deepcopy(wire.ue)  # as a UE would be that was put back from a copy of its memory
    wire.carry()
    wire.pass_time(1)
    wire.cut()
    wire.ue = old
    old.session.cut(wire.now_s)
    wire.connect()
    wire.carry()
    error = old.session.error
    assert isinstance(error, ResumeError)
    assert error.code == "resume"
    assert "the other end has messages up to" in str(error)
    assert "ask again under the same keys" in str(error)


def test_a_peer_that_has_more_than_was_sent_cannot_resume() -> None:
    wire = uncut()
    wire.cut()
    wire.ue.session._receiver.received += 5
    wire.connect()
    wire.carry()
    assert isinstance(wire.ue.session.error, ResumeError)


def test_nobody_resumes_a_session_of_another() -> None:
    wire = uncut()
    wire.cut()
    wire.owner = "somebody else"
    wire.connect()
    wire.carry()
    assert isinstance(wire.ue.session.error, ResumeError)
    assert len(wire.app.sessions) == 1  # who it belongs to still can


# --- each request once ---------------------------------------------------------------------------


@pytest.mark.parametrize("tables", [TABLES, WAITS], ids=["downlink", "uplink first"])
def test_the_same_key_50_times_at_once_is_one_execution(tables: messages.Tables) -> None:
    app = EsApp(make_es(SMALL))
    wires = [begin(make_wire(SMALL, app), tables=tables) for _ in range(50)]
    for wire in wires:
        wire.connect()
    rng = random.Random(0)
    for _ in range(2000):
        wire = rng.choice(wires)
        wire.carry(frames=2)
        if rng.random() < 0.02:
            wire.cut()
            wire.connect()
    for wire in wires:
        wire.carry()
        wire.pass_time(1)
    assert app.executed == {"k": 1}
    assert len([e for e in app.events if isinstance(e, Requested)]) == 1
    alike = [[e for e in told(w.ue) if not isinstance(e, StatesCompared)] for w in wires]
    assert all(found == alike[0] for found in alike)
    assert len(alike[0]) == 3


def test_the_same_request_sent_50_times_in_one_session_is_answered_once() -> None:
    wire = make_wire(SMALL)
    wire.connect()
    wire.carry()
    assert wire.es is not None
    wire.ue.session.ask("k", WAITS, deadline_s=9, now_s=0)
    for seq in range(1, 51):
        request = messages.Request(seq=seq, key="k", deadline_s=9, tables=WAITS)
        wire.app.take(wire.es.receive(encode(request), 0), wire.es, 0)
    assert len([e for e in wire.app.events if isinstance(e, Requested)]) == 1


def test_an_answer_can_be_asked_for_again() -> None:
    wire = begin(make_wire(SMALL), tables=TABLES)
    wire.connect()
    wire.carry()
    begin(wire, tables=TABLES)
    wire.carry()
    first, second = told(wire.ue)[:3], told(wire.ue)[3:]
    assert first == second
    assert wire.app.executed == {"k": 1}


def test_a_key_of_another_request_is_refused() -> None:
    wire = uncut()
    other = make_wire(SMALL, wire.app)
    other.ue.session.ask("k", TABLES, deadline_s=5, now_s=0)
    other.connect()
    other.carry()
    (failed,) = other.ue.of(Failed)
    assert failed.error.code == "key"
    assert "request k was asked before with other tables" in str(failed.error)
    assert wire.app.executed == {"k": 1}


def test_the_order_of_tables_does_not_matter() -> None:
    wire = begin(make_wire(SMALL), tables=TABLES)
    wire.connect()
    wire.carry()
    other = make_wire(SMALL, wire.app)
    turned: messages.Tables = {"request": dict(reversed(TABLES["request"].items()))}
    begin(other, tables=turned)
    other.connect()
    other.carry()
    assert told(other.ue) == told(wire.ue)


def test_keys_of_two_owners_are_two() -> None:
    wire = begin(make_wire(SMALL), tables=TABLES)
    other = make_wire(SMALL, wire.app, owner="ue-2")
    other.ue.session.ask("k", {"request": {"prompt": "lilies"}}, deadline_s=5, now_s=0)
    for each in (wire, other):
        each.connect()
        each.carry()
        assert each.ue.of(Answered)
    assert wire.app.executed == {"k": 2}


def test_answers_beyond_the_limit_are_forgotten_and_not_made_again() -> None:
    wire = make_wire(replace(SMALL, kept_bytes=5000, kept_keys=20))
    wire.connect()
    for number in range(30):
        begin(wire, f"k{number}", TABLES)
        wire.carry()
    generations = wire.app.sessions.generations
    for key, code in (("k29", None), ("k15", "gone")):
        begin(wire, key, TABLES)
        wire.carry()
        (last,) = (e for e in wire.ue.events[-1:] if isinstance(e, Answered | Failed))
        assert (last.error.code if isinstance(last, Failed) else None) == code
        assert wire.app.executed[key] == 1
    assert generations.get("ue-1", "k9") is None
    kept = [generations.get("ue-1", f"k{n}") for n in range(30)]
    assert sum(g.kept_bytes for g in kept if g is not None) <= 5000


def test_too_many_requests_are_told_when_to_come_again() -> None:
    for limits in (replace(SMALL, requests=2), replace(SMALL, running=2)):
        wire = make_wire(limits)
        wire.connect()
        for key in "abc":
            wire.ue.session.ask(key, WAITS, deadline_s=5, now_s=0)
        wire.carry()
        (failed,) = wire.ue.of(Failed)
        assert (failed.key, failed.error.code) == ("c", "busy")
        assert failed.error.retry_after_s is not None
        for key in "ab":
            wire.ue.session.send_feature(key, UPLOAD, source="encode", to_side=Side.ES, kind="seed")
        wire.ue.session.ask("c", WAITS, deadline_s=5, now_s=0)
        wire.carry()
        assert wire.ue.session.asked == ("c",)
        assert len(wire.ue.of(Answered)) == 2


# --- deadlines, cancelling, silence --------------------------------------------------------------


def test_a_deadline_ends_a_request_on_both_ends() -> None:
    wire = make_wire()
    wire.connect()
    wire.ue.session.ask("k", WAITS, deadline_s=2, now_s=0)
    wire.carry()
    assert wire.ue.session.wake_s <= 2
    assert wire.app.sessions.wake_s == 2
    wire.pass_time(1.9)
    assert wire.ue.session.asked == ("k",)
    wire.pass_time(0.1)
    assert [type(e) for e in wire.app.events[-1:]] == [Expired]
    (failed,) = wire.ue.of(Failed)
    assert failed.error.code == "deadline"
    wire.ue.session.ask("k", WAITS, deadline_s=2, now_s=wire.now_s)
    wire.carry()
    assert [e.error.code for e in wire.ue.of(Failed)] == ["deadline"] * 2  # it is over, for good


def test_a_ue_does_not_wait_for_an_es_that_is_gone() -> None:
    wire = make_wire()
    wire.ue.session.ask("k", WAITS, deadline_s=2, now_s=0)
    assert wire.ue.session.wake_s == 2
    wire.pass_time(2)
    assert [e.error.code for e in wire.ue.of(Failed)] == ["deadline"]


def test_a_deadline_beyond_the_limit_is_refused() -> None:
    wire = make_wire()
    wire.connect()
    wire.ue.session.ask("k", TABLES, deadline_s=601, now_s=0)
    wire.carry()
    (failed,) = wire.ue.of(Failed)
    assert str(failed.error) == "deadline_s is 601, at most 600 is taken; ask for less"


@pytest.mark.parametrize("after", range(0, 32, 3))
def test_cancelling_at_any_time_leaves_room_for_what_comes_next(after: int) -> None:
    wire = begin(make_wire(SMALL))
    wire.connect()
    wire.carry(after)
    wire.ue.session.cancel("k")
    mended = len(told(wire.ue))
    wire.cut()
    mend(wire)
    assert len(told(wire.ue)) == mended  # nothing more is told of it
    for key in ("m", "n"):
        begin(wire, key)
        wire.carry()
        wire.pass_time(1)
    assert [e.key for e in wire.ue.of(Answered) if e.key != "k"] == ["m", "n"]
    assert wire.app.executed["m"] == wire.app.executed["n"] == 1


def test_cancelling_amid_a_large_feature_gives_its_credit_back() -> None:
    wire = make_wire(SMALL)
    begin(wire, tables=TABLES)
    wire.connect()
    wire.carry(frames=8)
    assert 0 < wire.ue.session.held_bytes < 950  # a fragment
    wire.ue.session.cancel("k")
    begin(wire, "m", TABLES)
    wire.carry()
    wire.pass_time(1)
    assert [e.key for e in wire.ue.of(Answered)] == ["m"]


def test_the_last_to_cancel_stops_the_generation() -> None:
    app = EsApp(make_es(SMALL))
    wires = [make_wire(SMALL, app) for _ in range(2)]
    for wire in wires:
        wire.ue.session.ask("k", WAITS, deadline_s=5, now_s=0)
        wire.connect()
        wire.carry()
    for number, wire in enumerate(wires):
        wire.ue.session.cancel("k")
        wire.carry()
        assert len([e for e in app.events if isinstance(e, Cancelled)]) == number
    assert app.sessions.generations.running == ()


def test_an_es_may_finish_what_was_cancelled_meanwhile() -> None:
    wire = make_wire(SMALL)
    wire.ue.session.ask("k", WAITS, deadline_s=5, now_s=0)
    wire.connect()
    wire.carry()
    generation = wire.app.sessions.generations.get("ue-1", "k")
    assert generation is not None
    wire.ue.session.cancel("k")
    wire.carry()
    generation.finish("delivered", LEDGER)
    wire.carry()
    assert wire.ue.of(Answered) == []
    with pytest.raises(SessionError, match="request k is over; send before finish or fail"):
        generation.tell_state("fuse", b"12345678")


def test_what_fails_on_the_es_is_told_in_one_line() -> None:
    wire = make_wire(SMALL)
    wire.ue.session.ask("k", WAITS, deadline_s=5, now_s=0)
    wire.connect()
    wire.carry()
    generation = wire.app.sessions.generations.get("ue-1", "k")
    assert generation is not None
    generation.fail("request", "size_px is 255, the autoencoder needs a multiple of 8\nmore")
    wire.carry()
    (failed,) = wire.ue.of(Failed)
    assert failed.error.code == "request"
    assert str(failed.error) == "size_px is 255, the autoencoder needs a multiple of 8?more"


def test_states_that_differ_are_noticed_on_both_ends() -> None:
    wire = make_wire(SMALL)
    wire.ue.session.ask("k", WAITS, deadline_s=5, now_s=0)
    wire.connect()
    wire.carry()
    generation = wire.app.sessions.generations.get("ue-1", "k")
    assert generation is not None
    for stage, ours, theirs in (("fuse", b"12345678", b"12345678"), ("mix", b"12345678", b"x" * 8)):
        generation.tell_state(stage, ours)
        wire.ue.session.tell_state("k", stage, theirs)
    wire.carry()
    wire.pass_time(0)
    for events in (wire.ue.events, wire.app.events):
        found = [(e.stage, e.same) for e in events if isinstance(e, StatesCompared)]
        assert found == [("fuse", True), ("mix", False)]


def test_a_peer_that_is_silent_is_asked_and_then_given_up() -> None:
    wire = make_wire()
    wire.connect()
    wire.carry()
    wire.pass_time(Limits.ping_s)
    assert wire.ue.session.round_trip_s == 0
    assert wire.ue.session.phase == "open"
    wire.now_s += Limits.silence_s
    assert wire.ue.session.wake_s <= wire.now_s
    assert wire.ue.session.tick(wire.now_s) == [Silent()]
    assert wire.ue.session.phase == "cut"
    mend(wire)
    assert wire.ue.events[-1] == Opened(resumed=True)


def test_who_does_not_greet_is_not_waited_for() -> None:
    session = make_ue()
    session.connect(0)
    (closed,) = session.tick(session.wake_s)
    assert isinstance(closed, Closed)
    assert "no greeting within 10 s" in str(closed.error)


# --- greetings and goodbyes ----------------------------------------------------------------------


def test_another_bundle_is_refused_with_both_checksums() -> None:
    wire = make_wire()
    other = "cd" * 32
    wire.ue = UeApp(make_ue(bundle=other))
    wire.connect()
    wire.carry()
    error = wire.ue.session.error
    assert isinstance(error, HandshakeError)
    assert error.code == "bundle"
    assert str(error) == (
        f"the UE has the bundle {other}, the ES has {BUNDLE}; install the same megdt on both"
    )
    assert len(wire.app.sessions) == 0


def test_a_ue_refuses_an_es_of_another_bundle() -> None:
    session = make_ue()
    session.connect(0)
    welcome = messages.Welcome(bundle="cd" * 32, session="s", credit=10)
    (closed,) = session.receive(encode(welcome), 0)
    assert isinstance(closed, Closed)
    assert isinstance(closed.error, HandshakeError)
    assert "cd" * 32 in str(closed.error)
    assert BUNDLE in str(closed.error)


def test_another_version_is_refused_whatever_its_greeting_looks_like() -> None:
    hello = msgspec.msgpack.encode({"type": "hello", "protocol": 2, "models": [1, 2]})
    session, (closed,) = make_es().accept(hello, 0, owner="ue-1", new_id="s")
    assert isinstance(closed, Closed)
    frame = session.next_frame(0)
    assert frame is not None
    refusal = decode(frame)
    assert isinstance(refusal, messages.Error)
    assert refusal.code == "version"
    assert refusal.message == (
        "the UE speaks protocol 2, the ES speaks 1; install the same megdt on both"
    )
    ue = make_ue()
    ue.connect(0)
    welcome = msgspec.msgpack.encode({"type": "welcome", "protocol": 3})
    (closed,) = ue.receive(welcome, 0)
    assert isinstance(closed, Closed)
    assert isinstance(closed.error, HandshakeError)


def test_a_full_es_says_when_to_come_again() -> None:
    wire = make_wire(replace(SMALL, sessions=1))
    wire.connect()
    wire.carry()
    other = make_wire(SMALL, wire.app)
    other.connect()
    other.carry()
    error = other.ue.session.error
    assert error is not None
    assert (error.code, error.retry_after_s) == ("full", 1.0)


def test_a_bye_of_the_ue_ends_the_session_when_all_is_done() -> None:
    whole = uncut()
    for cut_after in (None, *range(whole.carried + 6)):
        wire = begin(make_wire(SMALL))
        wire.ue.session.close()
        wire.connect()
        if not wire.carry(cut_after):
            wire.cut()
            if wire.ue.session.phase != "closed":
                mend(wire)
        wire.pass_time(1)
        assert told(wire.ue) == told(whole.ue), cut_after
        assert wire.ue.session.phase == "closed", cut_after
        assert wire.ue.session.error is None
        with pytest.raises(SessionError, match="session is closed; begin another"):
            wire.ue.session.ask("m", TABLES, deadline_s=5, now_s=0)


def test_an_es_that_stops_finishes_what_runs() -> None:
    wire = make_wire(SMALL)
    wire.connect()
    wire.ue.session.ask("k", WAITS, deadline_s=50, now_s=0)
    wire.carry()
    assert wire.es is not None
    es = wire.es
    wire.app.sessions.close()
    wire.ue.session.ask("late", WAITS, deadline_s=50, now_s=0)
    wire.carry()
    assert [(e.key, e.error.code) for e in wire.ue.of(Failed)] == [("late", "leaving")]
    assert wire.ue.session.phase == es.phase == "leaving"
    wire.ue.session.send_feature("k", UPLOAD, source="encode", to_side=Side.ES, kind="seed")
    wire.carry()
    wire.pass_time(1)
    assert wire.ue.of(Answered)
    assert wire.ue.session.phase == es.phase == "closed"
    assert es.error is None
    wire.app.sessions.tick(wire.now_s)
    assert len(wire.app.sessions) == 0
    other = make_wire(SMALL, wire.app)
    other.connect()
    other.carry()
    assert "this ES stops; try again later" in str(other.ue.session.error)


def test_both_may_say_bye_at_once() -> None:
    wire = begin(make_wire(SMALL))
    wire.connect()
    wire.carry(9)
    wire.cut()
    wire.app.sessions.close()
    wire.ue.session.close()
    mend(wire)
    assert wire.ue.of(Answered)
    assert wire.ue.session.phase == "closed"
    assert wire.ue.session.error is None


# --- backpressure and memory ---------------------------------------------------------------------


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
        SMALL, frame_bytes=2**16, chunk_bytes=2**14, feature_bytes=2**17, window_bytes=2**17,
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


# --- peers that do not keep to it ----------------------------------------------------------------


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
    changed = mutated(4000, rng_seed=1)
    closed = 0
    tracemalloc.start()
    for rng_seed in range(200):
        wire = begin(make_wire(SMALL))
        wire.connect()
        wire.carry(frames=random.Random(rng_seed).randrange(2, 30))
        sessions = [wire.ue.session] if wire.es is None else [wire.ue.session, wire.es]
        for frame in (next(changed) for _ in range(10)):
            for session in sessions:
                session.receive(frame, 0)
                while session.next_frame(0) is not None:
                    pass
                session.tick(0)
        closed += sum(isinstance(session.error, SessionError) for session in sessions)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert closed > 300
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


def test_sessions_are_used_as_they_can_be() -> None:
    session = make_ue(SMALL)
    with pytest.raises(SessionError, match="request k does not run in this session"):
        session.send_lines("k", LEDGER)
    session.ask("k", TABLES, deadline_s=5, now_s=0)
    with pytest.raises(SessionError, match="request k runs already"):
        session.ask("k", TABLES, deadline_s=5, now_s=0)
    with pytest.raises(MessageError, match="beyond 2"):
        session.ask("m", {"request": {"rng_seed": 2**60}}, deadline_s=5, now_s=0)
    with pytest.raises(MessageError, match="deadline_s"):
        session.ask("m", TABLES, deadline_s=0, now_s=0)
    with pytest.raises(SessionError, match="release each feature once"):
        session.release(1, 0)
    session.connect(0)
    with pytest.raises(SessionError, match="phase greeting; connect one that is new or cut"):
        session.connect(0)
    assert session.asked == ("k",)
