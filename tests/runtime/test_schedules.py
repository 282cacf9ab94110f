"""Three UEs and an ES under schedules drawn at random: whatever happens in whatever order.

They ask, cancel, send, are slow, are cut, run late and ask again, all under small limits. What is held:
no session breaks, every request ends once, nothing is made twice, and what waits stays bounded.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from megdt.errors import SessionError
from megdt.records import Packet, Side
from megdt.runtime.events import Answered, Closed, Failed, FeatureArrived
from tests.runtime.wire import SMALL, TABLES, WAITS, EsApp, make_es, make_wire

SLACK_BYTES = 2000
"""Failures and byes may wait beyond the limit: they are small and few."""


class Schedule:
    def __init__(self, rng_seed: int) -> None:
        self.rng = random.Random(rng_seed)
        choose = self.rng.choice
        self.limits = replace(
            SMALL, chunk_bytes=choose((37, 100, 400)), window_bytes=choose((1000, 1500)),
            queue_bytes=choose((5000, 20_000)), ack_bytes=choose((1, 300, 3000)),
            replay_bytes=choose((8192, 9000)), requests=choose((2, 8)),
        )  # fmt: skip
        self.app = EsApp(make_es(self.limits))
        self.wires = [make_wire(self.limits, self.app) for _ in range(3)]
        self.held: dict[int, list[int]] = {0: [], 1: [], 2: []}
        self.seen = [0, 0, 0]
        self.asked, self.ended = (
            [Counter[str]() for _ in range(3)],
            [Counter[str]() for _ in range(3)],
        )
        self.cancelled: list[set[str]] = [set(), set(), set()]
        self.now_s = 0.0
        for wire in self.wires:
            wire.ue.reads = False
            wire.connect()

    def step(self, number: int) -> None:
        turn = self.rng.randrange(3)
        wire, dice = self.wires[turn], self.rng.random()
        session = wire.ue.session
        if dice < 0.15:
            self.ask(turn, f"k{self.rng.randrange(number // 6 + 1)}")
        elif dice < 0.2 and session.asked:
            key = self.rng.choice(session.asked)
            session.cancel(key)
            self.cancelled[turn].add(key)
        elif dice < 0.25:
            wire.carry(wire.carried + self.rng.randrange(5))
            wire.cut() if self.rng.random() < 0.5 else session.cut(self.now_s)
            wire.connect()
        elif dice < 0.35:
            self.pass_time(self.rng.choice((0, 0.01, 0.06, 0.3)))
        elif dice < 0.6 and self.held[turn]:
            held = self.held[turn]
            session.release(held.pop(self.rng.randrange(len(held))), self.now_s)
        else:
            wire.carry(frames=self.rng.randrange(12))
        self.look(turn)

    def ask(self, turn: int, key: str) -> None:
        session, waits = self.wires[turn].ue.session, int(key[1:]) % 2
        if key in session.asked or key in self.cancelled[turn]:
            return
        try:
            deadline_s = self.rng.choice((0.5, 50))
            session.ask(key, WAITS if waits else TABLES, deadline_s=deadline_s, now_s=self.now_s)
            self.asked[turn][key] += 1
            for source in ("encode", "encode again")[: self.rng.randrange(1, 3) if waits else 0]:
                upload = Packet(payload=bytes(self.rng.randrange(900)))
                session.send_feature(key, upload, source=source, to_side=Side.ES, kind="seed")
        except SessionError as error:
            if error.code != "slow" and "is being cancelled" not in str(error):
                raise

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.app.events += self.app.sessions.tick(self.now_s)
        for wire in self.wires:
            wire.now_s = self.now_s
            wire.ue.take(wire.ue.session.tick(self.now_s), self.now_s)
            if wire.es is not None:
                self.app.take(wire.es.tick(self.now_s), wire.es, self.now_s)

    def look(self, turn: int) -> None:
        events = self.wires[turn].ue.events
        for event in events[self.seen[turn] :]:
            if isinstance(event, FeatureArrived):
                self.held[turn].append(event.size_bytes)
            elif isinstance(event, Answered | Failed):
                self.ended[turn][event.key] += 1
            elif isinstance(event, Closed):
                assert event.error is None
        self.seen[turn] = len(events)
        for wire in self.wires:
            for session in filter(None, (wire.ue.session, wire.es)):
                assert session.held_bytes <= self.limits.window_bytes
                assert session.queued_bytes <= self.limits.queue_bytes + SLACK_BYTES
                assert session._sender.kept_bytes <= self.limits.replay_bytes

    def finish(self) -> None:
        for wire in self.wires:
            wire.ue.session.close()
        for _ in range(60):
            self.pass_time(1)
            for turn, wire in enumerate(self.wires):
                self.look(turn)
                while self.held[turn]:
                    wire.ue.session.release(self.held[turn].pop(), self.now_s)
                wire.carry()


@pytest.mark.parametrize("rng_seeds", [range(n, n + 10) for n in range(0, 60, 10)], ids=str)
def test_any_schedule_ends_well(rng_seeds: range) -> None:
    made = 0
    for rng_seed in rng_seeds:
        schedule = Schedule(rng_seed)
        for number in range(400):
            schedule.step(number)
        schedule.finish()
        for turn, wire in enumerate(schedule.wires):
            assert wire.ue.session.phase == "closed", rng_seed
            for key, times in schedule.asked[turn].items():
                if key not in schedule.cancelled[turn]:
                    assert schedule.ended[turn][key] == times, (rng_seed, key)
        assert set(schedule.app.executed.values()) == {1}, rng_seed
        made += schedule.app.executed.total()
    assert made > 100
