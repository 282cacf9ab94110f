"""What sessions tell those who drive them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from megdt.errors import SessionError
from megdt.records import Kind, Ledger, Outcome, Side
from megdt.runtime.contents import Content

if TYPE_CHECKING:
    from megdt.runtime.generations import Generation


@dataclass(frozen=True, kw_only=True)
class Opened:
    """Both ends have greeted."""

    resumed: bool
    """Whether a session goes on that was cut."""


@dataclass(frozen=True, kw_only=True)
class Leaving:
    """The peer takes, or makes, no new requests; those that run are finished."""


@dataclass(frozen=True, kw_only=True)
class Silent:
    """Nothing has come for so long that the connection counts as cut: let go of it."""


@dataclass(frozen=True, kw_only=True)
class Closed:
    """The session is over; send what `next_frame` still gives, and let go of the connection."""

    error: SessionError | None
    """None after a clean bye."""


@dataclass(frozen=True, kw_only=True)
class FeatureArrived:
    """A feature is here. Its bytes count against the peer until `Session.release` is told of them."""

    key: str
    source: str
    to_side: Side
    kind: Kind
    content: Content
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class LinesArrived:
    """What the peer's stages and crossings have cost."""

    key: str
    ledger: Ledger


@dataclass(frozen=True, kw_only=True)
class StatesCompared:
    """Both ends have named what their copies hold after a stage."""

    key: str
    stage: str
    same: bool


@dataclass(frozen=True, kw_only=True)
class Requested:
    """To the ES: something is to be made, now and once."""

    generation: Generation


@dataclass(frozen=True, kw_only=True)
class Cancelled:
    """To the ES: nobody wants it any more; stop."""

    generation: Generation


@dataclass(frozen=True, kw_only=True)
class Expired:
    """To the ES: its deadline has passed; stop."""

    generation: Generation


@dataclass(frozen=True, kw_only=True)
class Answered:
    """To the UE: the last of a request."""

    key: str
    outcome: Outcome
    ledger: Ledger


@dataclass(frozen=True, kw_only=True)
class Failed:
    """To the UE: the last of a request that has no result."""

    key: str
    error: SessionError
    """Its `code` is one of `messages.FailureCode`."""


Event = (
    Opened | Leaving | Silent | Closed | FeatureArrived | LinesArrived | StatesCompared | Requested
    | Cancelled | Expired | Answered | Failed
)  # fmt: skip
