"""Digests: what has changed is found, what is as it was is not, for four bits a block."""

from __future__ import annotations

import numpy as np
import pytest

from megdt.codecs.digest import DigestCodec
from megdt.codecs.observation import BLOCK
from megdt.errors import CodecError
from megdt.records import Delivery, Feature

SHAPE = (4, 32, 28)
RNG = np.random.default_rng(0)
VIEW = RNG.standard_normal(SHAPE).astype(np.float32)


def changes(now: np.ndarray, before: np.ndarray, number: int = 0) -> np.ndarray:
    codec = DigestCodec(shape=SHAPE, number=number)
    packet = codec.encode(Feature(kind="observation", values=now))
    return codec.compare(codec.decode(Delivery(payload=packet.payload)), before)


def changed_view() -> tuple[np.ndarray, np.ndarray]:
    """The view with every third block another, and which these are."""
    which = np.zeros((8, 7), bool)
    which.flat[::3] = True
    cells = np.kron(which, np.ones((BLOCK, BLOCK)))
    return (VIEW + cells * RNG.standard_normal(SHAPE)).astype(np.float32), which


def test_a_digest_takes_half_a_byte_a_block() -> None:
    codec = DigestCodec(shape=SHAPE, number=0)
    assert codec.encode(Feature(kind="observation", values=VIEW)).bits == codec.bits == 4 * 56
    # An odd number of blocks takes half a byte more.
    odd = DigestCodec(shape=(4, 4, 12), number=0)
    assert odd.encode(Feature(kind="observation", values=VIEW[:, :4, :12])).bits == odd.bits == 16


def test_what_has_not_changed_says_nothing() -> None:
    assert (changes(VIEW, VIEW) == 0).all()
    # Neither int8 nor another camera's edges are a change to speak of.
    near = VIEW + 0.05 * RNG.standard_normal(SHAPE).astype(np.float32)
    assert changes(near, VIEW).max() < 0.5


def test_most_of_what_has_changed_is_found_at_once_and_the_rest_later() -> None:
    now, which = changed_view()
    found = [changes(now, VIEW, number) for number in range(6)]
    assert all((f[~which] == 0).all() for f in found)
    assert (found[0][which] > 0).mean() > 0.7
    assert (np.max(found, 0)[which] > 0).all()


def test_both_ends_must_count_alike() -> None:
    codec, other = (DigestCodec(shape=SHAPE, number=n) for n in (0, 1))
    packet = codec.encode(Feature(kind="observation", values=VIEW))
    came = other.decode(Delivery(payload=packet.payload))
    assert (other.compare(came, VIEW) > 0).mean() > 0.5


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(CodecError, match=r"a digest of \(4, 30, 28\) was asked for"):
        DigestCodec(shape=(4, 30, 28), number=0)
    codec = DigestCodec(shape=SHAPE, number=0)
    with pytest.raises(CodecError, match=r"a view of shape \(4, 32, 24\) came to a digest of"):
        codec.encode(Feature(kind="observation", values=VIEW[:, :, :24]))
    with pytest.raises(CodecError, match=r"a digest of 3 bytes arrived, one of .* has 28"):
        codec.decode(Delivery(payload=b"abc"))
