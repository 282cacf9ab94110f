from __future__ import annotations

import numpy as np
import pytest

from megdt.codecs.superposed import LEVEL, SuperposedCodec
from megdt.errors import CodecError
from megdt.records import Delivery, Feature

SHAPE = (4, 8, 12)
CODEC = SuperposedCodec(shape=SHAPE)


def part(rng_seed: int) -> Feature:
    values = np.random.default_rng(rng_seed).standard_normal(SHAPE).astype(np.float32)
    return Feature(kind="superposed", values=values)


def test_the_sum_of_symbols_is_the_sum_of_parts() -> None:
    parts = [part(number) for number in range(3)]
    symbols = [CODEC.encode(p).symbols for p in parts]
    found = CODEC.decode(Delivery(symbols=sum(symbols), noise_power=0.1))
    assert found.kind == "superposed"
    assert found.values == pytest.approx(sum(p.values for p in parts), abs=1e-5)
    # A number has half of a symbol's power, and half of its noise.
    assert found.noise_power == pytest.approx(0.1 / LEVEL**2)


def test_numbers_of_unit_variance_go_below_unit_power_and_zeros_at_none() -> None:
    values = part(0).values
    values[:, :, 3:] = 0
    symbols = CODEC.encode(Feature(kind="superposed", values=values)).symbols
    assert symbols is not None
    assert symbols.shape == (4 * 8 * 12 // 2,)
    there = symbols[: 4 * 8 * 3 // 2]  # column by column
    assert np.mean(np.abs(there) ** 2) == pytest.approx(LEVEL**2, rel=0.2)
    assert not symbols[4 * 8 * 3 // 2 :].any()


def test_the_gain_does_not_depend_on_what_is_sent() -> None:
    once, half = part(0), part(0)
    half.values[:] *= 0.5
    one, other = CODEC.encode(once).symbols, CODEC.encode(half).symbols
    assert one is not None
    assert other == pytest.approx(one / 2, abs=1e-6)


def test_what_does_not_fit_is_refused() -> None:
    loud = Feature(kind="superposed", values=part(0).values * 2)
    with pytest.raises(CodecError, match=r"root mean square of 2\.01, .* carry up to 1\.25"):
        CODEC.encode(loud)
    odd = Feature(kind="superposed", values=np.zeros((1, 3, 3), np.float32))
    with pytest.raises(CodecError, match="odd number of elements"):
        SuperposedCodec(shape=(1, 3, 3)).encode(odd)
    with pytest.raises(CodecError, match="191 analog symbols arrived, 384 values take 192"):
        CODEC.decode(Delivery(symbols=np.zeros(191, np.complex64)))
