"""What two ends must have in common."""

from __future__ import annotations

from megdt.errors import HandshakeError
from megdt.runtime import messages
from megdt.runtime.limits import Limits
from megdt.runtime.scanning import Frame


def check_peer(
    greeting: messages.Hello | messages.Welcome, bundle: str, *, here: str, there: str
) -> None:
    """See that the other end has the same models.

    Args:
        greeting: Of the other end.
        bundle: Of this end.
        here: What this end is, ES or UE.
        there: What the other is.

    Raises:
        HandshakeError: If it has another bundle.
    """
    if greeting.bundle != bundle:
        raise HandshakeError(
            f"the {there} has the bundle {greeting.bundle}, the {here} has {bundle}; install the "
            "same megdt on both, and give both the same --model",
            code="bundle",
        )


def check_version(frame: Frame, limits: Limits, *, here: str, there: str) -> None:
    """See that a greeting, if it is one, is of this version; others may have other fields.

    Raises:
        HandshakeError: If it is not.
        MessageError: If the frame is beyond the limits.
    """
    protocol = messages.greeted_version(frame, limits)
    if protocol not in (None, messages.PROTOCOL):
        raise HandshakeError(
            f"the {there} speaks protocol {protocol}, the {here} speaks {messages.PROTOCOL}; "
            "install the same megdt on both",
            code="version",
        )
