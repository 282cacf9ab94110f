"""A UE's session, as it is used and as it cannot be."""

from __future__ import annotations

import pytest

from megdt.errors import MessageError, SessionError
from megdt.runtime.events import Failed
from tests.runtime.wire import LEDGER, SMALL, TABLES, WAITS, make_ue, make_wire


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


def test_a_key_is_free_when_the_es_has_said_its_last() -> None:
    wire = make_wire(SMALL)
    wire.ue.session.ask("k", WAITS, deadline_s=5, now_s=0)
    wire.ue.session.cancel("k")
    wire.ue.session.ask("k", WAITS, deadline_s=5, now_s=0)  # the first was never sent
    wire.connect()
    wire.carry()
    wire.ue.session.cancel("k")
    with pytest.raises(SessionError, match="request k is being cancelled"):
        wire.ue.session.ask("k", WAITS, deadline_s=5, now_s=0)
    wire.carry()
    assert wire.ue.of(Failed) == []
    wire.ue.session.ask("k", WAITS, deadline_s=5, now_s=0)
    wire.carry()
    (failed,) = wire.ue.of(Failed)
    assert failed.error.code == "cancelled"
