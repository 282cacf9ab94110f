"""docs/protocol.md says what there is."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from megdt.runtime import messages
from megdt.runtime.limits import Limits
from megdt.runtime.session import Phase

PAGE = (Path(__file__).parent.parent.parent / "docs" / "protocol.md").read_text()


def table(heading: str) -> dict[str, list[str]]:
    """Rows of the table with this first heading, by what stands first in each."""
    text = PAGE[PAGE.index(f"| {heading} |") :].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]
    return {re.findall(r"`(\w+)`", row[0])[0]: row for row in rows}


def test_every_message_is_on_the_page_and_no_other() -> None:
    assert list(table("message")) == [
        "hello", "welcome", "ack", "ping", "pong", "error", "bye", "request", "cancel", "feature",
        "chunk", "state", "lines", "result", "failure",
    ]  # fmt: skip
    assert set(table("message")) == {kind.__name__.lower() for kind in messages.MESSAGES}


@pytest.mark.parametrize("kind", messages.MESSAGES, ids=lambda kind: kind.__name__)
def test_every_field_is_on_the_page(kind: type[messages.Message]) -> None:
    row = table("message")[kind.__name__.lower()]
    assert (row[2] == "yes") == issubclass(kind, messages.Numbered)
    features = PAGE[PAGE.index("**Features.**") :].split("\n")[0]
    text = row[3] + features if kind is messages.Feature else row[3]
    for field in msgspec.structs.fields(kind):
        assert field.name == "seq" or f"`{field.name}`" in text, field.name


def test_every_code_is_on_the_page() -> None:
    assert list(table("`error` | what happened")) == list(get_args(messages.ErrorCode))
    assert list(table("`failure` | what happened")) == list(get_args(messages.FailureCode))


def test_every_cap_is_on_the_page_with_its_default() -> None:
    caps = {name: float(row[1]) for name, row in table("cap").items()}
    assert caps == {field.name: getattr(Limits(), field.name) for field in fields(Limits)}


def test_times_and_sizes_in_the_text_are_those_of_the_code() -> None:
    limits = Limits()
    for text in (
        f"within {limits.ack_bytes // 1024} KiB or {limits.ack_delay_s:g} s",
        f"up to {limits.parcel_bytes // 1024} KiB",
        f"while {(limits.replay_bytes - limits.frame_bytes) >> 20} MiB are",
        f"the last {limits.kept_keys} keys",
        f"keeps a session for {limits.resume_s:g} s",
        f"After {limits.ping_s:g} s without a frame",
        f"after {limits.silence_s:g} s it gives",
        f"come within {limits.greeting_s:g} s",
        f"`protocol` ({messages.PROTOCOL})",
    ):
        assert text in PAGE


def test_every_phase_is_on_the_page() -> None:
    for phase in get_args(Phase):
        assert f"`{phase}`" in PAGE
