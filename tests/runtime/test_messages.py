"""Frames as bytes: what they mean, and what is refused before anything is made of it."""

from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import msgspec
import numpy as np
import pytest

from megdt.errors import MessageError, SessionError
from megdt.mechanisms.execute import Execution, Progress
from megdt.mechanisms.simulate import simulate
from megdt.mechanisms.single_user import ES_TO_UE
from megdt.mechanisms.stages import Stage
from megdt.records import Delivery, Packet, Request, Side
from megdt.runtime import messages
from megdt.runtime.contents import Content, pack, unpack
from megdt.runtime.limits import Limits
from megdt.runtime.messages import decode, encode
from megdt.runtime.scanning import check_frame
from tests.mechanisms.test_execute import settings
from tests.runtime.fuzz import changed_frames
from tests.runtime.golden import EXAMPLES, FILE, REFUSED, readable

GOLDEN = json.loads(FILE.read_text())
CHUNK = messages.Chunk(seq=1, number=1, offset=0, data=memoryview(bytes(2**16)))


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_message_comes_back_as_it_was(name: str) -> None:
    assert decode(encode(EXAMPLES[name])) == EXAMPLES[name]


def test_there_is_an_example_of_every_message() -> None:
    assert {type(example) for example in EXAMPLES.values()} == set(messages.MESSAGES)


@pytest.mark.parametrize("row", GOLDEN["messages"], ids=lambda row: row["name"])
def test_golden_frames_mean_what_stands_beside_them(row: dict[str, Any]) -> None:
    frame = bytes.fromhex(row["frame"])
    assert decode(frame) == EXAMPLES[row["name"]]
    assert encode(EXAMPLES[row["name"]]) == frame
    assert readable(msgspec.msgpack.decode(frame)) == row["message"]


def test_golden_frames_are_all_there() -> None:
    assert [row["name"] for row in GOLDEN["messages"]] == list(EXAMPLES)
    assert {row["name"]: bytes.fromhex(row["frame"]) for row in GOLDEN["refused"]} == REFUSED


@pytest.mark.parametrize("name", REFUSED)
def test_a_frame_that_is_no_message_is_refused_at_once(name: str) -> None:
    with pytest.raises(MessageError):  # what is compiled or imported once is not its cost
        decode(REFUSED[name])
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(MessageError) as caught:
        decode(REFUSED[name])
    took_s = time.perf_counter() - started
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert took_s < 0.05
    assert peak_bytes < 100_000
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 350


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("two messages", "frame has 38 bytes and its value 19; send one message in one frame"),
        ("cut off", "frame ends after 18 bytes, amid a value; send frames whole"),
        ("a text of 4 GiB", "text of 4294967295 bytes, at most 16384 are taken; shorten it"),
        ("bytes of 4 GiB", "claims a value of 4294967295 bytes where 0 are left"),
        ("a list of 4 Gi values", "claims 4294967300 values, at most 32768 are taken"),
        ("a map of 4 Gi pairs", "claims 8589934591 values, at most 32768 are taken"),
        ("lists 1,000 deep", "nested deeper than 8 lists and maps"),
        ("an extension type", "a value of type 0xd4 at byte 18"),
        ("an integer beyond 2**53 - 1", r"the integer 9007199254740992, beyond 2\*\*53 - 1"),
        ("no number in the tables", "a number at byte 58 that is infinite or none"),
        ("text for a number", "Expected `int`, got `str` - at `.*number`"),
        ("bad UTF-8", "is no message: 'utf-8' codec can't decode byte 0xff"),
    ],
)
def test_a_refusal_says_what_was_found_and_what_is_expected(name: str, told: str) -> None:
    with pytest.raises(MessageError, match=told):
        decode(REFUSED[name])


def test_a_frame_as_large_as_may_be_is_refused_in_time() -> None:
    limits = Limits()
    tall = b"\x91" * limits.frame_bytes
    wide = b"\xdc\x7f\xf0" + b"\xcb" + bytes(8) + b"\xa0" * (0x7FF0 - 1)
    long = b"\xc6" + (limits.frame_bytes - 5).to_bytes(4) + bytes(limits.frame_bytes - 5)
    for frame in (tall, wide, long, long + b"\x00"):
        started = time.perf_counter()
        with pytest.raises(MessageError):
            decode(frame)
        assert time.perf_counter() - started < 0.05
    check_frame(wide, limits)
    check_frame(long, limits)
    with pytest.raises(MessageError, match="frame has 1048577 bytes, at most 1048576 are taken"):
        check_frame(long + b"\x00", limits)


def test_integers_stand_for_fractions_as_javascript_writes_them() -> None:
    fields = {"type": "request", "seq": 1, "key": "k", "deadline_s": 30, "tables": {"a": {"b": 1}}}
    message = decode(msgspec.msgpack.encode(fields))
    assert isinstance(message, messages.Request)
    assert message.deadline_s == 30.0


def test_a_chunk_is_a_view_of_its_frame() -> None:
    frame = encode(CHUNK)
    tracemalloc.start()
    message = decode(frame)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(message, messages.Chunk)
    assert message.data.obj is frame
    assert peak_bytes < 10_000


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (messages.Request(key="k", deadline_s=1.0, tables={"a": {"b": float("nan")}}), "infinite"),
        (messages.Request(key="k", deadline_s=1.0, tables={"a": {"b": 2**53}}), r"beyond 2\*\*53"),
        (messages.Request(key="k", deadline_s=1.0, tables={"a": {"b": 2**70}}), "cannot be written"),
        (messages.Request(key="k", deadline_s=1.0, tables={"a": {"b": 1j}}), "a complex, which no"),
        (messages.Request(key="k", deadline_s=1.0, tables={"a": {"b": "\ud800"}}), "surrogates"),
        (messages.Error(code="full", message="m" * 20_000), "text of 20000 bytes, at most 16384"),
    ],
)  # fmt: skip
def test_what_no_frame_may_hold_is_not_written(message: messages.Message, told: str) -> None:
    with pytest.raises(MessageError, match=told):
        decode(encode(message))


REQUEST = Request(prompt="red poppies", steps=2)


def test_a_real_ledger_crosses_unchanged() -> None:
    result = simulate(ES_TO_UE, REQUEST, **settings())
    assert result.ledger.crossings
    sent = messages.Result(seq=1, key="k", outcome=result.outcome, ledger=result.ledger)
    came = decode(encode(sent))
    assert isinstance(came, messages.Result)
    assert came.ledger == result.ledger
    assert came.ledger.energy_j == result.ledger.energy_j
    assert all(isinstance(side, Side) for side in came.ledger.waiting_j)


def test_a_generation_whose_deliveries_cross_as_frames_gives_the_same_picture() -> None:
    whole = simulate(ES_TO_UE, REQUEST, **settings())
    made = Progress(execution=Execution(mechanism=ES_TO_UE, request=REQUEST, **settings()))
    for step in ES_TO_UE.steps:
        if isinstance(step, Stage):
            made.run(step)
            continue
        delivery = made.send(step)
        assert delivery is not None
        announced, body = pack(
            delivery, key="k", source=step.source.name, to_side=step.target.side,
            kind=step.source.makes,
        )  # fmt: skip
        came = decode(encode(msgspec.structs.replace(announced, seq=1)))
        assert isinstance(came, messages.Feature)
        content = unpack(came, body)
        assert isinstance(content, Delivery)
        made.receive(step, content)
    assert whole.image is not None
    np.testing.assert_array_equal(made.features["decode"].values, whole.image)
    seeds = (made.arrived["denoise", Side.UE], whole.arrived["denoise", Side.UE])
    assert seeds[0].values.tobytes() == seeds[1].values.tobytes()
    assert seeds[0].noise_power == seeds[1].noise_power > 0


SYMBOLS = np.array([1 + 2j, -0.5j, 3e-30], np.complex64)


@pytest.mark.parametrize(
    "content",
    [
        Packet(payload=b"seed", told_snr=True, values=4),
        Packet(symbols=SYMBOLS),
        Packet(payload=b"gain", symbols=SYMBOLS.real.copy()),
        Packet(),
        Delivery(payload=b"seed"),
        Delivery(payload=b"gain", symbols=SYMBOLS, noise_power=0.25, among=3),
        Delivery(symbols=SYMBOLS, noise_power=np.array([0.1, 0.2, 0.3], np.float32)),
        Delivery(outcome="lost"),
    ],
)
def test_packets_and_deliveries_cross_bit_for_bit(content: Content) -> None:
    announced, body = pack(content, key="k", source="denoise", to_side=Side.UE, kind="seed")
    assert announced.size_bytes == len(body)
    came = unpack(announced, body)
    assert type(came) is type(content)
    for name in ("payload", "symbols", "told_snr", "values", "outcome", "noise_power", "among"):
        sent, got = (np.asarray(getattr(c, name, None)) for c in (content, came))
        assert got.dtype == sent.dtype
        assert got.tobytes() == sent.tobytes() or got.dtype == object


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (Packet(symbols=np.zeros(3)), "symbols of float64 and shape"),
        (Packet(symbols=np.zeros((2, 2), np.float32)), r"shape \(2, 2\)"),
        (Delivery(symbols=SYMBOLS, noise_power=np.zeros(2, np.float32)), r"noise of shape \(2,\)"),
    ],
)
def test_symbols_of_another_make_are_not_sent(content: Content, told: str) -> None:
    with pytest.raises(MessageError, match=told):
        pack(content, key="k", source="denoise", to_side=Side.UE, kind="seed")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (Packet(symbols=np.array([np.nan], np.float32)), "symbols that are infinite"),
        (Packet(symbols=np.array([np.inf * 1j], np.complex64)), "symbols that are infinite"),
        (Delivery(symbols=SYMBOLS, noise_power=np.full(3, np.nan, np.float32)), "noise powers"),
        (Delivery(symbols=SYMBOLS, noise_power=np.full(3, -1, np.float32)), "negative"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered in multiply")
def test_symbols_that_are_no_numbers_are_not_taken(content: Content, told: str) -> None:
    announced, body = pack(content, key="k", source="denoise", to_side=Side.UE, kind="seed")
    with pytest.raises(MessageError, match=told):
        unpack(announced, body)


def test_what_somebody_else_has_written_fits_in_a_line() -> None:
    assert messages.one_line("a\nb\x1b[31m\u202e" + "c" * 500) == "a?b?[31m?" + "c" * 188 + "..."


def test_limits_that_do_not_go_together_are_said() -> None:
    with pytest.raises(SessionError, match="limit depth is 0, expected a number above 0"):
        Limits(depth=0)
    with pytest.raises(SessionError, match="frame_bytes has to be at least chunk_bytes"):
        Limits(frame_bytes=10)
    with pytest.raises(SessionError, match="at least 2 times frame_bytes"):
        Limits(replay_bytes=2**20)


def test_changed_frames_are_messages_or_refused_and_nothing_else() -> None:
    taken = 0
    tracemalloc.start()
    for frame in changed_frames(4000, rng_seed=0):
        try:
            message = decode(frame)
        except MessageError:
            continue
        taken += 1
        assert decode(encode(message)) == message
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 50 < taken < 2000  # some changes leave a message
    assert peak_bytes < 2_000_000
