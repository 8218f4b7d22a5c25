"""Lead names, lead order, derived leads and units, by hand and for random orders."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedecg.errors import SignalError
from fedecg.signals import LEADS, Recording, recording_from_leads

EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")


def numbered(count: int) -> np.ndarray:
    """(count, 5): row i holds i + 1, so that a row can be recognised."""
    return np.repeat(np.arange(1.0, count + 1)[:, None], 5, axis=1)


def refusal(names: list[str], units: list[str]) -> SignalError:
    with pytest.raises(SignalError) as caught:
        recording_from_leads(numbered(len(names)), names, units, 100.0)
    return caught.value


@given(
    st.permutations(range(12)),
    st.lists(st.sampled_from(["lower", "upper", "title"]), min_size=12, max_size=12),
)
def test_leads_come_out_in_standard_order_whatever_their_order_and_case(order, cases):
    names = [getattr(LEADS[lead], case)() for lead, case in zip(order, cases, strict=True)]
    signal = numbered(12)[list(order)]
    recording = recording_from_leads(signal, names, ["mV"] * 12, 250.0)
    np.testing.assert_array_equal(recording.signal_mv, numbered(12))
    assert recording.signal_mv.dtype == np.float32
    assert recording.signal_mv.flags.c_contiguous


@given(
    st.lists(st.sampled_from(["mV", "mv", "MV", "uV", "uv", "µV", "μV", " µv "]), min_size=12, max_size=12)
)
def test_every_lead_is_scaled_by_its_own_unit(units):
    recording = recording_from_leads(np.ones((12, 3)), LEADS, units, 100.0)
    expected = [1.0 if unit.strip().lower() == "mv" else 1e-3 for unit in units]
    np.testing.assert_allclose(recording.signal_mv[:, 0], expected, rtol=1e-6)


@given(st.permutations(EIGHT))
def test_four_limb_leads_are_derived_where_eight_are_stored(names):
    values = {"I": 0.4, "II": 1.0}
    signal = np.array([[values.get(name, 7.0)] * 2 for name in names])
    recording = recording_from_leads(signal, names, ["mV"] * 8, 100.0)
    one, two, three, avr, avl, avf = recording.signal_mv[:6, 0]
    np.testing.assert_allclose([one, two, three, avr, avl, avf], [0.4, 1.0, 0.6, -0.7, -0.1, 0.8], rtol=1e-6)
    assert np.all(recording.signal_mv[6:] == 7.0)


def test_the_callers_array_is_not_changed():
    signal = np.ones((12, 3), dtype=np.float32)
    recording_from_leads(signal, LEADS, ["uV"] * 12, 100.0)
    assert np.all(signal == 1.0)


@pytest.mark.parametrize("unit", ["V", "nV", "adu", "", "mmHg"])
def test_an_unknown_unit_is_refused_and_not_repeated(unit):
    error = refusal(list(LEADS), ["mV"] * 11 + [unit])
    assert str(error) == (
        "FECG-207 units: found 1 of 12 leads in an unknown unit; expected mV, uV or µV. "
        "Correct the unit in the header."
    )


def test_an_unknown_lead_is_refused_without_repeating_its_name():
    error = refusal([*LEADS, "Mrs Smith"], ["mV"] * 13)
    assert error.code == "FECG-208"
    assert "1 of 13 leads with an unknown name" in str(error)
    assert "Smith" not in str(error)


def test_a_lead_stored_twice_is_refused():
    error = refusal([*LEADS, "v1"], ["mV"] * 13)
    assert error.code == "FECG-209"
    assert "1 lead(s) stored more than once" in str(error)


def test_missing_leads_are_refused_by_name():
    error = refusal([lead for lead in LEADS if lead not in ("V2", "aVF")], ["mV"] * 10)
    assert error.code == "FECG-210"
    assert "10 of 12 leads, without aVF, V2" in str(error)


@pytest.mark.parametrize("shape", [(11, 100), (12,), (12, 0), (100, 12)])
def test_an_array_of_another_shape_is_no_recording(shape):
    with pytest.raises(SignalError, match=r"FECG-211 recording: found an array of shape") as caught:
        Recording(np.zeros(shape, dtype=np.float32), 100.0)
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("rate_hz", [0.0, -100.0, float("nan"), float("inf"), 15.5, 1e6])
def test_an_impossible_sampling_rate_is_no_recording(rate_hz):
    with pytest.raises(SignalError, match=r"FECG-211 recording: found a sampling rate of .* 50 to 20000 Hz"):
        Recording(np.zeros((12, 100), dtype=np.float32), rate_hz)


def test_a_recordings_text_shows_no_value_of_the_patient():
    assert repr(Recording(np.ones((12, 3), dtype=np.float32), 100.0)) == "Recording(rate_hz=100.0)"


def test_what_no_electrode_ever_gave_is_a_gap() -> None:
    signal = np.zeros((12, 500))
    signal[0, 3], signal[1, 4], signal[2, 5], signal[3, 6] = 1e300, -np.inf, 1e7, 999_999
    read = Recording(signal, 500.0).signal_mv
    assert np.isnan(read[[0, 1, 2], [3, 4, 5]]).all()
    assert np.isnan(read).sum() == 3
    assert read[3, 6] == 999_999
