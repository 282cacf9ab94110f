"""Short-lived tokens: who a UE is, until when, and a mark that only a holder of the key can make.

The key itself never crosses the network: who has it mints a token for each connection.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time

from megdt.errors import SessionError

LIFETIME_S = 3600.0
"""Of a token, where nothing else is said."""
LONGEST_S = 86400.0
"""Tokens that last longer are refused, whoever made them."""
_SKEW_S = 30.0
"""Clocks of two machines may differ by this much."""
_OWNER = re.compile(r"[A-Za-z0-9_-]{1,48}")


def mint(
    key: str, owner: str, *, lifetime_s: float = LIFETIME_S, now_s: float | None = None
) -> str:
    """A token, OWNER.EXPIRY.MARK.

    Args:
        key: That the ES was started with.
        owner: Letters, digits, _ and -; requests are kept apart by it.
        lifetime_s: From now on.
        now_s: Seconds since 1970; the clock's where left out.

    Raises:
        SessionError: If the owner's name or the lifetime is none that the ES takes.
    """
    if not _OWNER.fullmatch(owner):
        raise SessionError(
            f"owner is {owner!r}, expected 1 to 48 letters, digits, _ or -; name the UE so",
            code="token",
        )
    if not 0 < lifetime_s <= LONGEST_S:
        raise SessionError(
            f"a token is to last {lifetime_s:g} s, at most {LONGEST_S:g} are taken; mint a new one "
            "before it ends",
            code="token",
        )
    expiry = int((time.time() if now_s is None else now_s) + lifetime_s)
    told = f"{owner}.{expiry}"
    return f"{told}.{_mark(key, told)}"


def check(key: str, token: str, *, now_s: float | None = None) -> str:
    """The owner of a token.

    Raises:
        SessionError: If it is none, of another key, over, or made to last too long.
    """
    owner, _, rest = token.partition(".")
    expiry, _, mark = rest.partition(".")
    # Compared in the time that it takes, whatever it is.
    good = hmac.compare_digest(_mark(key, f"{owner}.{expiry}").encode(), mark.encode())
    if not (good and _OWNER.fullmatch(owner) and expiry.isdecimal()):
        raise SessionError("no token, or not one of this ES; show one that it minted", code="token")
    left_s = int(expiry) - (time.time() if now_s is None else now_s)
    if left_s < -_SKEW_S:
        raise SessionError(f"the token ended {-left_s:.0f} s ago; mint a new one", code="token")
    if left_s > LONGEST_S + _SKEW_S:
        raise SessionError(
            f"the token lasts {left_s:.0f} s more, at most {LONGEST_S:g} are taken; mint another",
            code="token",
        )
    return owner


def _mark(key: str, told: str) -> str:
    return hmac.new(key.encode(), told.encode(), hashlib.sha256).hexdigest()[:40]
