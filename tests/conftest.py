"""Fixtures that many tests share, and shape checks for every model while tests run."""

from __future__ import annotations

import pytest
from jaxtyping import install_import_hook

install_import_hook("megdt.models", "beartype.beartype")

from megdt.models.bundle import Bundle  # noqa: E402
from tests.plain_models import PlainModels  # noqa: E402


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The package's own bundle."""
    return Bundle()


@pytest.fixture
def models() -> PlainModels:
    return PlainModels()
