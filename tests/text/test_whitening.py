"""From embeddings to vectors: by hand, invariances, and embeddings that say nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose

from fedecg.errors import TextError
from fedecg.text import whiten
from fedecg.text.whitening import WHITENINGS

# Two orthogonal axes, spread 4 and 1 around a centre far away.
RAW = np.array([[4, 0], [-4, 0], [0, 1], [0, -1], [4, 1], [-4, -1], [4, -1], [-4, 1]], dtype=np.float32)


@pytest.mark.parametrize(("kind", "power"), [("none", 0.0), ("half", 0.5), ("full", 1.0)])
def test_whitening_divides_each_axis_by_a_power_of_its_spread(kind: str, power: float) -> None:
    spread = np.linalg.svd(RAW, compute_uv=False)
    evened = RAW / spread**power
    expected = evened / np.linalg.norm(evened, axis=1, keepdims=True)
    assert_allclose(whiten(RAW + np.float32(100), kind), expected, atol=1e-5)


@pytest.mark.parametrize("kind", WHITENINGS)
@given(arrays(np.float32, (5, 7), elements=st.floats(-1, 1, width=32)), st.floats(-3, 3), st.floats(0.1, 10))
def test_whitening_ignores_shift_and_scale(kind: str, raw: np.ndarray, shift: float, scale: float) -> None:
    raw = raw + np.eye(5, 7, dtype=np.float32) * 4  # keeps rows apart
    moved = (raw * np.float32(scale) + np.float32(shift)).astype(np.float32)
    assert_allclose(whiten(moved, kind), whiten(raw, kind), atol=1e-4)


def test_full_whitening_with_room_enough_makes_all_equally_unlike() -> None:
    vectors = whiten(np.random.default_rng(0).normal(size=(6, 9)).astype(np.float32), "full")
    assert_allclose((vectors @ vectors.T)[~np.eye(6, dtype=bool)], -1 / 5, atol=1e-6)


def test_embeddings_that_are_all_one_are_refused_and_not_blown_up_from_rounding() -> None:
    same = np.full((4, 3), 7.0, dtype=np.float32)
    same[2, 1] = np.nextafter(np.float32(7), np.float32(8))
    with pytest.raises(
        TextError, match="FECG-252 .* found 4 of 4 that do not differ .* --pooling last-token"
    ):
        whiten(same)


def test_an_unknown_whitening_is_refused() -> None:
    with pytest.raises(TextError, match="FECG-249 whitening: found a kind .* one of none, half, full"):
        whiten(RAW, "zca")
