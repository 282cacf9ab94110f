"""Both ends of sessions against each other: cuts, deadlines, silence, greetings and goodbyes."""

from __future__ import annotations

import copy
import random
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from megdt.errors import (
    HandshakeError,
    ResumeError,
    SessionError,
)
from megdt.records import Side
from megdt.runtime import messages
from megdt.runtime.events import (
    Answered,
    Closed,
    Expired,
    Failed,
    LinesArrived,
    Opened,
    Silent,
    StatesCompared,
)
from megdt.runtime.limits import Limits
from megdt.runtime.messages import decode, encode
from tests.runtime.wire import (
    BUNDLE,
    LEDGER,
    SMALL,
    TABLES,
    UPLOAD,
    WAITS,
    EsApp,
    UeApp,
    begin,
    make_es,
    make_ue,
    make_wire,
    mend,
    told,
    uncut,
)


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


def test_who_does_not_greet_is_not_waited_for_and_greeted_again() -> None:
    wire = make_wire()
    wire.ue.session.connect(0)  # and nothing that is sent gets there
    assert wire.ue.session.wake_s == Limits.greeting_s
    assert wire.ue.session.tick(Limits.greeting_s - 0.1) == []
    assert wire.ue.session.tick(Limits.greeting_s) == [Silent()]
    assert wire.ue.session.phase == "cut"
    mend(wire)
    assert wire.ue.session.phase == "open"


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
        f"the UE has the bundle {other}, the ES has {BUNDLE}; install the same megdt on both, and give both the same --model"
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


def test_an_es_answers_a_bye_when_it_is_done() -> None:
    kinds: list[str] = []
    wire = make_wire(SMALL, watch=lambda to, frame: kinds.append(type(decode(frame)).__name__))
    wire.ue.session.ask("k", WAITS, deadline_s=50, now_s=0)
    wire.ue.session.close()
    wire.connect()
    wire.carry()
    wire.pass_time(1)
    assert kinds.count("Bye") == 1  # the UE's
    wire.ue.session.send_feature("k", UPLOAD, source="encode", to_side=Side.ES, kind="seed")
    wire.carry()
    assert kinds.index("Result") < len(kinds) - 1 - kinds[::-1].index("Bye")
    assert kinds.count("Bye") == 2


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


def test_both_may_say_bye_while_a_request_runs() -> None:
    wire = make_wire(SMALL)
    wire.connect()
    wire.ue.session.ask("k", WAITS, deadline_s=50, now_s=0)
    wire.carry()
    wire.cut()
    wire.app.sessions.close()
    wire.ue.session.close()
    mend(wire)
    assert wire.ue.session.phase == "leaving"
    wire.ue.session.send_feature("k", UPLOAD, source="encode", to_side=Side.ES, kind="seed")
    wire.carry()
    wire.pass_time(1)
    assert wire.ue.of(Answered)
    assert wire.ue.session.phase == "closed"
    assert wire.ue.session.error is None


def test_a_connection_that_was_replaced_is_not_missed() -> None:
    wire = uncut()
    session, old = wire.es, wire.ue.session.connections
    wire.ue.session.cut(0)
    wire.connect()
    wire.carry()
    assert session is wire.es
    assert session is not None
    session.cut(0, connection=old)  # noticed at last
    assert session.phase == "open"
    session.cut(0, connection=session.connections)
    assert session.phase == "cut"
