"""Every message between a UE and the ES, and how it becomes a frame of bytes.

A frame is one MessagePack map, which names its fields and its type: so a reader in another language
needs no table of positions, and beside chunks of features a few names cost nothing. Values are those
that JavaScript knows too: no extension types, no integer beyond 2**53 - 1, no number that is infinite
or none. `docs/protocol.md` says what goes when.

Messages with a `seq` are numbered from 1 on in each direction; they survive a cut of the connection.
The others belong to a connection and are never sent again.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

import msgspec
import numpy as np
from msgspec import Meta

from megdt.errors import MegdtError, MessageError, SessionError
from megdt.link.energy import DeviceProfile
from megdt.records import Kind, Ledger, Outcome, Side
from megdt.runtime.limits import Limits
from megdt.runtime.scanning import LARGEST_INT, Frame, check_frame

PROTOCOL = 1
"""Goes up with every change that another version cannot read."""

Count = Annotated[int, Meta(ge=0, le=LARGEST_INT)]
Number = Annotated[int, Meta(ge=1, le=LARGEST_INT)]
Name = Annotated[str, Meta(pattern=r"^[ -~]{1,64}\Z")]
"""Printable ASCII, so that it can stand in a log."""
Text = Annotated[str, Meta(max_length=500)]
Checksum = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
"""SHA-256, as hexadecimal."""
Seconds = Annotated[float, Meta(gt=0)]
Plain = None | bool | int | float | str
Tables = dict[str, dict[str, Plain | list[Plain]]]
"""Those of a scenario, as `parse_scenario` takes them: what to make, and how."""

ErrorCode = Literal["message", "credit", "version", "bundle", "session", "resume", "slow", "full"]
"""Why a session is over."""
FailureCode = Literal[
    "request", "busy", "key", "gone", "deadline", "slow", "cancelled", "leaving", "internal"
]
"""Why a request has no result."""


class Message(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="type",
    tag=str.lower,
):
    """What all have in common: a `type`, which is the class in lower case."""


class Numbered(Message, frozen=True, kw_only=True):
    """A message that survives a cut."""

    seq: Count = 0
    """Set when it is sent: 1, 2, 3 and so on in each direction."""


class Hello(Message, frozen=True, kw_only=True):
    """The UE begins a connection: a new session, or one that goes on after a cut."""

    protocol: Number = PROTOCOL
    bundle: Checksum
    """Of the models on the UE: both ends must have the same."""
    device: DeviceProfile
    """What the UE can do and what it draws; plans and ledgers go by it."""
    capabilities: Annotated[list[Name], Meta(max_length=32)] = []
    """Such as `fp16`, `webgpu`, `camera`."""
    session: str = ""
    """As the ES named it; empty for a new one."""
    received: Count = 0
    """The last `seq` that came from the ES."""
    credit: Count
    """As in `Ack`."""


class Welcome(Message, frozen=True, kw_only=True):
    """The ES takes it."""

    protocol: Number = PROTOCOL
    bundle: Checksum
    capabilities: Annotated[list[Name], Meta(max_length=32)] = []
    session: Name
    """Who knows it can go on after a cut."""
    received: Count = 0
    """The last `seq` that came from the UE; what came after is sent again."""
    credit: Count
    """As in `Ack`."""


class Ack(Message, frozen=True, kw_only=True):
    """How far the other end has come, and how far this one may go."""

    received: Count
    """Every message up to this `seq` is here; the peer need not keep it."""
    credit: Count
    """Bytes in chunks that the peer may send in all, counted from the beginning of the session."""


class Ping(Message, frozen=True, kw_only=True):
    """Is anybody there?"""

    number: Count


class Pong(Message, frozen=True, kw_only=True):
    """Yes, to the `Ping` of this number."""

    number: Count


class Error(Message, frozen=True, kw_only=True):
    """The last of a session that cannot go on."""

    code: ErrorCode
    message: Text
    """One line: found, expected, what to do."""
    retry_after_s: Seconds | None = None


class Bye(Numbered, frozen=True, kw_only=True):
    """No new request comes, or is taken, from here; those that run are finished."""


class Request(Numbered, frozen=True, kw_only=True):
    """Please make this."""

    key: Name
    """The UE's own, of this request alone: with it the request can be sent again and runs once."""
    deadline_s: Seconds
    """From when the ES has it; clocks of two machines are not compared."""
    tables: Tables


class Cancel(Numbered, frozen=True, kw_only=True):
    """The UE no longer wants it. The ES answers with a failure, if it has not said its last."""

    key: Name


class Feature(Numbered, frozen=True, kw_only=True):
    """A feature follows in chunks: payload, then symbols, then their noise. No chunk for none."""

    key: Name
    number: Number = 1
    """Of the feature in this direction of the session: 1, 2, 3 and so on."""
    source: Name
    """The stage that made it."""
    to_side: Side
    kind: Kind
    crossed: bool = False
    """Whether it has been through a link, as a Delivery; else it is as its codec made it, a Packet."""
    outcome: Outcome = "delivered"
    payload_bytes: Count = 0
    symbols: Count = 0
    dtype: Literal["complex64", "float32"] | None = None
    """Of the symbols, little-endian."""
    noise_power: Annotated[float, Meta(ge=0)] = 0.0
    noises: bool = False
    """A float32 for each symbol follows, instead of one noise power for all."""
    told_snr: bool = False
    values: Count = 0
    """Numbers that a packet was made of."""
    among: Number = 1

    @property
    def size_bytes(self) -> int:
        """Of all its chunks."""
        symbol_bytes = 8 if self.dtype == "complex64" else 4
        return self.payload_bytes + self.symbols * (symbol_bytes + (4 if self.noises else 0))

    def __post_init__(self) -> None:
        if (self.symbols > 0) != (self.dtype is not None):
            raise ValueError(f"{self.symbols} symbols of dtype {self.dtype}; give both or none")
        if self.noises and not self.symbols:
            raise ValueError("noises, and no symbols that they are of")
        if self.crossed and (self.told_snr or self.values):
            raise ValueError("told_snr or values of a feature that has crossed a link")
        of_delivery = self.outcome != "delivered" or self.noises or self.noise_power
        if not self.crossed and (of_delivery or self.among != 1):
            raise ValueError("outcome, noise or round of a feature that has not crossed a link")
        if self.crossed and self.outcome != "delivered" and self.size_bytes:
            raise ValueError(f"{self.size_bytes} bytes of a feature that is {self.outcome}")


class Chunk(Numbered, frozen=True, kw_only=True):
    """Some bytes of the feature that was announced last."""

    number: Number
    """Of the feature."""
    offset: Count
    """Bytes of it that came before."""
    data: memoryview


class State(Numbered, frozen=True, kw_only=True):
    """What a copy of a model holds on this end, by its hash: both ends compare."""

    key: Name
    stage: Name
    """After which it holds that."""
    hash: Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]


class Lines(Numbered, frozen=True, kw_only=True):
    """What this end's stages and crossings have cost: its part of the ledger."""

    key: Name
    ledger: Ledger


class Result(Numbered, frozen=True, kw_only=True):
    """The last of a request: what became of it, and what all sides have spent."""

    key: Name
    outcome: Outcome = "delivered"
    ledger: Ledger


class Failure(Numbered, frozen=True, kw_only=True):
    """The last of a request that has no result; neither end sends more of it."""

    key: Name
    code: FailureCode
    message: Text
    retry_after_s: Seconds | None = None


AnyMessage = (
    Hello | Welcome | Ack | Ping | Pong | Error | Bye | Request | Cancel | Feature | Chunk | State
    | Lines | Result | Failure
)  # fmt: skip
MESSAGES: tuple[type[Message], ...] = get_args(AnyMessage)


class _Greeting(msgspec.Struct):
    """What every version of the protocol has in its Hello and Welcome."""

    type: str
    protocol: int


def _to_plain(value: Any) -> Any:
    """Values of records that MessagePack has no name for."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, str):
        return str(value)
    raise TypeError(f"a {type(value).__name__}, which no message carries")


def _from_plain(kind: type, value: Any) -> Any:
    if kind is Side:
        return Side(value)
    raise TypeError(f"a {kind.__name__}, which no message carries")


_encoder = msgspec.msgpack.Encoder(enc_hook=_to_plain)
_decoder = msgspec.msgpack.Decoder(AnyMessage, dec_hook=_from_plain)
_greetings = msgspec.msgpack.Decoder(_Greeting)
_LIMITS = Limits()


def encode(message: Message, limits: Limits = _LIMITS) -> bytes:
    """A message as a frame.

    Raises:
        MessageError: If it holds what no frame may, such as a number that is not finite.
    """
    frame = write(message)
    check_frame(frame, limits)
    return frame


def write(message: Message) -> bytes:
    """A message as a frame, of values that are known to be good.

    Raises:
        MessageError: If MessagePack has no name for one.
    """
    try:
        return _encoder.encode(message)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise MessageError(
            f"a {_type_of(message)} message cannot be written: {one_line(str(error))}; "
            "give it plain values"
        ) from error


def decode(frame: Frame, limits: Limits = _LIMITS) -> AnyMessage:
    """A frame as the message that it is; chunks are views of the frame, not copies.

    Raises:
        MessageError: If it is none, or beyond the limits. Nothing is allocated for what it claims.
    """
    check_frame(frame, limits)
    try:
        message: AnyMessage = _decoder.decode(frame)
    except (msgspec.MsgspecError, MegdtError, ValueError, OverflowError, RecursionError) as error:
        raise MessageError(
            f"frame of {len(frame)} bytes is no message: {one_line(str(error))}; see "
            "docs/protocol.md for the fields of each"
        ) from error
    return message


def greeted_version(frame: Frame, limits: Limits = _LIMITS) -> int | None:
    """The protocol version in a Hello or Welcome of any version; None for all else.

    Raises:
        MessageError: If it is beyond the limits.
    """
    check_frame(frame, limits)
    try:
        greeting = _greetings.decode(frame)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return greeting.protocol if greeting.type in ("hello", "welcome") else None


def as_code(error: SessionError, codes: Any, otherwise: str) -> Any:
    """The code of an error, if it is one of these that a message may have."""
    return error.code if error.code in get_args(codes) else otherwise


def one_line(text: str, longest: int = 200) -> str:
    """A text of somebody else, fit to stand in a message of ours."""
    clean = re.sub(r"[^ -~]+", "?", text[: longest + 1])
    return clean if len(clean) <= longest else f"{clean[: longest - 3]}..."


def _type_of(message: Message) -> str:
    return type(message).__name__.lower()
