"""One example of every message, and frames that are none: what the golden frames are made of.

python -m tests.runtime.golden    writes tests/golden/messages.json anew

In the file each frame is hexadecimal and stands beside its meaning, in which bytes are hexadecimal too.
Readers in other languages are held to the same file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from megdt.link.energy import DeviceProfile
from megdt.records import Computation, Crossing, Ledger, Side, Uses
from megdt.runtime import messages

FILE = Path(__file__).parent.parent / "golden" / "messages.json"

_NUMBERS = {
    "flops_per_s": 5e9, "compute_power_w": 4.0, "compute_idle_power_w": 0.25, "core_power_w": 1.5,
    "transmit_circuit_power_w": 1.25, "amplifier_efficiency": 0.375, "receive_power_w": 0.75,
    "radio_idle_power_w": 0.0625,
}  # fmt: skip
DEVICE = DeviceProfile(
    name="a browser", sources=dict.fromkeys(_NUMBERS, "made up, as an example"), **_NUMBERS
)
LEDGER = Ledger(
    crossings=(
        Crossing(
            source="denoise", target="decode", from_side=Side.ES, to_side=Side.ue(3), kind="seed",
            codec="QuantisedSeedCodec()", outcome="late", values=4096, bits=32768, header_bits=120,
            uses=Uses(data=20000, retransmissions=300, pilots=1700, control=1700, feedback=24),
            blocks=5, failed_first=1, airtime_s=0.0125, latency_s=0.02, radiated_j=0.0025,
            sender_j=0.05, receiver_j=0.025, among=2, round_s=0.5, start_s=1.5, end_s=2.0,
        ),
    ),
    computations=(
        Computation(
            stage="decode", task="decode seed", source="denoise", side=Side.ES, seconds=0.25,
            measured_s=0.375, flops=1e9, energy_j=2.5, start_s=1.0,
        ),
    ),
    waiting_j={Side.ES: 0.5, Side.UE: 0.125},
)  # fmt: skip

EXAMPLES: dict[str, messages.Message] = {
    "hello": messages.Hello(
        bundle="0123456789abcdef" * 4, device=DEVICE,
        capabilities=["fp16", "camera"], credit=4194304,
    ),
    "hello again": messages.Hello(
        bundle="0123456789abcdef" * 4, device=DEVICE, session="kX3_-9",
        received=300, credit=2**53 - 1,
    ),
    "welcome": messages.Welcome(
        bundle="fedcba9876543210" * 4, session="kX3_-9", received=70000, credit=2**32
    ),
    "ack": messages.Ack(received=127, credit=128),
    "ping": messages.Ping(number=1),
    "pong": messages.Pong(number=65536),
    "error": messages.Error(
        code="bundle", message="the UE has the bundle 01, the ES has fe; install the same",
        retry_after_s=0.5,
    ),
    "bye": messages.Bye(seq=9),
    "request": messages.Request(
        seq=1, key="7d0e", deadline_s=30.0,
        tables={
            "request": {"prompt": "weiße Lilien 百合 🌷", "size_px": 256, "rng_seed": 2**53 - 1},
            "plan": {"mechanism": "es_to_ue", "restore": True, "told_snr_db": -2.5},
            "world": {"positions": [0, -1, -33, -129, -40000, 1.5], "note": None},
        },
    ),
    "cancel": messages.Cancel(seq=2, key="7d0e"),
    "feature of bits": messages.Feature(
        seq=3, key="7d0e", source="denoise", to_side=Side.UE, kind="seed", payload_bytes=5
    ),
    "feature of symbols": messages.Feature(
        seq=5, key="7d0e", number=2, source="share_1_2", to_side=Side.ue(2), kind="observation",
        crossed=True, symbols=1, dtype="complex64", noises=True, among=3,
    ),
    "feature that is lost": messages.Feature(
        seq=7, key="7d0e", number=3, source="denoise", to_side=Side.ES, kind="seed", crossed=True,
        outcome="lost",
    ),
    "chunk": messages.Chunk(seq=4, number=1, offset=0, data=memoryview(b"\x00\x7f\x80\xff\n")),
    "chunk of symbols": messages.Chunk(
        seq=6, number=2, offset=0, data=memoryview(bytes.fromhex("0000803f000000c00000003f"))
    ),
    "state": messages.State(seq=8, key="7d0e", stage="fuse", hash="00ff00ff00ff00ff"),
    "lines": messages.Lines(seq=9, key="7d0e", ledger=LEDGER),
    "result": messages.Result(seq=10, key="7d0e", outcome="late", ledger=LEDGER),
    "failure": messages.Failure(
        seq=11, key="7d0e", code="busy", message="64 requests are running", retry_after_s=1.0
    ),
}  # fmt: skip


def _pack(**fields: Any) -> bytes:
    return msgspec.msgpack.encode(fields)


_FEATURE = {
    "type": "feature", "seq": 1, "key": "k", "source": "denoise", "to_side": "UE", "kind": "seed",
}  # fmt: skip
_PING = _pack(type="ping", number=1)
_TEXT = b"\x82\xa4type\xa4ping\xa6number"

REFUSED: dict[str, bytes] = {
    "nothing": b"",
    "two messages": _PING + _PING,
    "cut off": _PING[:-1],
    "a list": b"\x92\xa4ping\x01",
    "no type": _pack(number=1),
    "a type that is not there": _pack(type="pang", number=1),
    "a field too many": _pack(type="ping", number=1, urgent=True),
    "a field too few": _pack(type="ping"),
    "text for a number": _pack(type="ping", number="1"),
    "a number below 0": _pack(type="ping", number=-1),
    "a fraction for a count": _pack(type="ping", number=1.5),
    "an integer beyond 2**53 - 1": _pack(type="ping", number=2**53),
    "an integer of 64 bits below": _pack(type="ping", number=-(2**60)),
    "no number": _pack(type="request", seq=1, key="k", deadline_s=float("nan"), tables={}),
    "infinite": _pack(type="request", seq=1, key="k", deadline_s=float("inf"), tables={}),
    "no number in float32": _TEXT + b"\xca\x7f\xc0\x00\x00",
    "no number in the tables": _pack(
        type="request", seq=1, key="k", deadline_s=1, tables={"link": {"snr_db": float("nan")}}
    ),
    "no number in a ledger": _pack(
        type="lines", seq=1, key="k",
        ledger={"crossings": [], "computations": [], "waiting_j": {"UE": float("nan")}},
    ),
    "a deadline of 0": _pack(type="request", seq=1, key="k", deadline_s=0, tables={}),
    "bad UTF-8": _pack(type="cancel", seq=1, key="kk").replace(b"kk", b"\xff\xfe"),
    "half a surrogate": _pack(type="cancel", seq=1, key="kkk").replace(b"kkk", b"\xed\xa0\x80"),
    "a line break in a key": _pack(type="cancel", seq=1, key="k\n"),
    "a key too long": _pack(type="cancel", seq=1, key="k" * 65),
    "a text too long": _pack(type="error", code="full", message="m" * 501),
    "a text of 4 GiB": _TEXT + b"\xdb\xff\xff\xff\xff",
    "bytes of 4 GiB": _TEXT + b"\xc6\xff\xff\xff\xff",
    "a list of 4 Gi values": _TEXT + b"\xdd\xff\xff\xff\xff",
    "a map of 4 Gi pairs": b"\xdf\xff\xff\xff\xff",
    "a map of 16,000 pairs in 3 bytes": b"\xde\x3e\x80",
    "lists 1,000 deep": _TEXT + b"\x91" * 1000,
    "maps 1,000 deep": b"\x81\xa1m" * 1000 + b"\x80",
    "an extension type": _TEXT + b"\xd4\x01\x00",
    "a time stamp": _TEXT + b"\xd6\xff\x00\x00\x00\x00",
    "the type that MessagePack never uses": b"\xc1",
    "a kind that is not there": _pack(**_FEATURE | {"kind": "smell"}),
    "a side that is not there": _pack(**_FEATURE | {"to_side": "UE0"}),
    "a dtype that is not there": _pack(**_FEATURE, symbols=4, dtype="float64"),
    "symbols without a dtype": _pack(**_FEATURE, symbols=4),
    "a dtype without symbols": _pack(**_FEATURE, dtype="float32"),
    "noises without symbols": _pack(**_FEATURE, crossed=True, noises=True),
    "noise below 0": _pack(**_FEATURE, crossed=True, noise_power=-0.5),
    "bytes of what was lost": _pack(**_FEATURE, crossed=True, outcome="lost", payload_bytes=1),
    "a packet that was lost": _pack(**_FEATURE, outcome="lost"),
    "a bundle that is no checksum": _pack(type="welcome", bundle="1", session="s", credit=1),
    "a state that is no hash": _pack(type="state", seq=1, key="k", stage="fuse", hash="12"),
}  # fmt: skip


def readable(value: Any) -> Any:
    """Values of MessagePack as JSON's."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: readable(held) for key, held in value.items()}
    return [readable(held) for held in value] if isinstance(value, list) else value


def main() -> None:
    frames = {name: messages.encode(message) for name, message in EXAMPLES.items()}
    rows = [
        {"name": name, "frame": frame.hex(), "message": readable(msgspec.msgpack.decode(frame))}
        for name, frame in frames.items()
    ]
    refused = [{"name": name, "frame": frame.hex()} for name, frame in REFUSED.items()]
    lines = {
        part: ",\n".join(json.dumps(row, ensure_ascii=False) for row in table)
        for part, table in (("messages", rows), ("refused", refused))
    }
    FILE.write_text(
        "{\n" + ",\n".join(f'"{part}": [\n{text}\n]' for part, text in lines.items()) + "\n}\n"
    )


if __name__ == "__main__":
    main()
