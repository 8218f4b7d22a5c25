"""An update in 16 bits comes back within its stated error, and nothing else is taken for one."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedecg.errors import FederationError
from fedecg.federation.transfer import decoded, encoded


def weights(seed: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights that came, and after training."""
    rng = np.random.default_rng(seed)
    received = rng.normal(size=1000).astype(np.float32)
    return received, received + (scale * rng.normal(size=1000)).astype(np.float32)


@given(st.integers(0, 1000), st.sampled_from([1e-6, 1e-3, 1.0, 100.0]))
def test_the_error_is_within_what_is_stated(seed: int, scale: float) -> None:
    received, trained = weights(seed, scale)
    change = (trained - received).astype(np.float64)
    assert decoded(encoded(trained, received, "float32"), received, "float32").tobytes() == trained.tobytes()
    half = encoded(trained, received, "float16").astype(np.float64)
    assert np.all(np.abs(half - change) <= np.maximum(np.abs(change) * 2**-11, 2**-25))
    bits = encoded(trained, received, "bfloat16")
    brain = (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    assert np.all(np.abs(brain - change) <= np.abs(change) * 2**-8)


def test_the_bits_of_bfloat16_are_those_of_torch() -> None:
    received, trained = weights(7, 0.01)
    theirs = torch.from_numpy(trained - received).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    assert encoded(trained, received, "bfloat16").tobytes() == theirs.tobytes()


@pytest.mark.parametrize("transfer", ["float16", "bfloat16"])
def test_a_change_that_is_not_finite_stays_so(transfer: str) -> None:
    received = np.zeros(3, np.float32)
    trained = np.array([np.nan, np.inf, 1.0], np.float32)
    back = decoded(encoded(trained, received, transfer), received, transfer)  # type: ignore[arg-type]
    assert not np.isfinite(back[:2]).any()
    assert back[2] == 1.0


def test_sixteen_bits_halve_what_is_sent() -> None:
    received, trained = weights(1, 0.1)
    assert encoded(trained, received, "float16").nbytes * 2 == encoded(trained, received, "float32").nbytes


def test_another_kind_or_length_is_refused() -> None:
    received = np.zeros(4, np.float32)
    with pytest.raises(FederationError, match=r"FECG-501 update of a site: found numbers of kind float32"):
        decoded(received, received, "float16")
    with pytest.raises(
        FederationError, match="FECG-504 update of a site: found 3 numbers; expected 4 numbers"
    ):
        decoded(np.zeros(3, np.float16), received, "float16")
    assert decoded(None, received, "float16") is None
