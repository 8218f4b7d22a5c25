"""The code bank: what is shipped, its file, its checks, and the targets that codes give."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import save_file

from fedecg.errors import TextError
from fedecg.text import Bank, load_bank, make_bank, scp_statements, targets, whiten, write_bank

DEMO = load_bank("minilm-demo")


def small_bank() -> Bank:
    vectors = whiten(np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32))
    return make_bank("small", ["NORM", "LVH", "AFIB"], vectors, {"model": "drawn"})


def cosine(one: str, other: str) -> float:
    return float(DEMO.vectors[DEMO.codes.index(one)] @ DEMO.vectors[DEMO.codes.index(other)])


def test_the_shipped_bank_has_a_unit_vector_for_each_of_the_71_codes() -> None:
    assert DEMO.vectors.shape == (71, 384)
    assert DEMO.vectors.dtype == np.float32
    assert DEMO.codes == tuple(scp_statements())
    assert_allclose(np.linalg.norm(DEMO.vectors, axis=1), 1, atol=1e-6)


def test_the_shipped_bank_keeps_what_is_alike_nearer_than_what_is_not() -> None:
    assert cosine("AMI", "ASMI") > cosine("AMI", "SR")
    assert cosine("AFIB", "AFLT") > cosine("AFIB", "LVH")
    assert cosine("CLBBB", "ILBBB") > cosine("CLBBB", "IMI")


def test_a_bank_comes_back_from_its_files_and_the_same_bank_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_bank(small_bank(), tmp_path / name / "small.safetensors")
    loaded = load_bank(tmp_path / "one" / "small.safetensors")
    assert_array_equal(loaded.vectors, small_bank().vectors)
    assert (loaded.name, loaded.codes, loaded.sha256) == (
        "small",
        ("NORM", "LVH", "AFIB"),
        small_bank().sha256,
    )
    assert loaded.provenance["model"] == "drawn"
    for file in ("small.safetensors", "small.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert sorted(file.name for file in (tmp_path / "one").iterdir()) == ["small.json", "small.safetensors"]


def test_the_hash_knows_codes_order_and_every_bit_of_the_vectors() -> None:
    bank = small_bank()
    nudged = bank.vectors.copy()
    nudged[0, 0] = np.nextafter(nudged[0, 0], np.float32(2))
    hashes = {
        bank.sha256,
        make_bank("small", ["LVH", "NORM", "AFIB"], bank.vectors, {}).sha256,
        make_bank("small", bank.codes, nudged, {}).sha256,
    }
    assert len(hashes) == 3
    assert make_bank("renamed", bank.codes, bank.vectors, {}).sha256 == bank.sha256


def test_an_unknown_bank_is_refused_with_the_names_there_are(tmp_path: Path) -> None:
    with pytest.raises(TextError, match=r"FECG-241 bank nobody: found no such file; .*\(minilm-demo\)"):
        load_bank("nobody")
    with pytest.raises(TextError, match=r"FECG-241 bank small: found a file name that does not end in"):
        write_bank(small_bank(), tmp_path / "small.npz")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(
        TextError, match="FECG-241 bank folder: found a folder of that name; expected a bank of"
    ):
        write_bank(small_bank(), tmp_path / "folder.safetensors")
    assert {file.name for file in tmp_path.rglob("*")} == {"folder.safetensors"}


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("truncated", "content that cannot be read"),
        ("foreign", "content that cannot be read"),
        ("no-provenance", "no .json beside it"),
        ("broken-provenance", "text that is not JSON"),
        ("another-provenance", "content that cannot be read"),
    ],
)
def test_a_damaged_bank_file_is_refused(tmp_path: Path, damage: str, found: str) -> None:
    path = tmp_path / "small.safetensors"
    write_bank(small_bank(), path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-7])
    elif damage == "foreign":
        save_file({"weights": np.zeros((2, 2), dtype=np.float32)}, path)
    elif damage == "no-provenance":
        path.with_suffix(".json").unlink()
    else:
        text = "{" if damage == "broken-provenance" else "[1, 2]"
        path.with_suffix(".json").write_text(text, encoding="utf-8")
    with pytest.raises(
        TextError, match=rf"FECG-241 bank small: found {found}; expected a bank of the package"
    ):
        load_bank(path)


def test_a_bank_with_other_contents_or_another_provenance_than_recorded_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    write_bank(small_bank(), path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x80  # the sign of the last number: lengths stay 1, so only the hash can tell
    path.write_bytes(bytes(content))
    with pytest.raises(
        TextError, match="FECG-244 bank small: found contents, or a provenance file, with another"
    ):
        load_bank(path)
    write_bank(small_bank(), path)
    provenance = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    path.with_suffix(".json").write_text(json.dumps({**provenance, "sha256": "0" * 64}), encoding="utf-8")
    with pytest.raises(TextError, match="FECG-244"):
        load_bank(path)


@pytest.mark.parametrize(
    ("codes", "shape", "dtype"),
    [
        (["A", "B"], (3, 4), np.float32),
        (["A", "A", "B"], (3, 4), np.float32),
        (["A", "", "B"], (3, 4), np.float32),
        (["A", "B", "C"], (3, 4), np.float64),
        (["A", "B", "C"], (3,), np.float32),
        (["A", "B"], (2, 0), np.float32),
        (["A"], (1, 4), np.float32),
    ],
)
def test_codes_and_vectors_that_do_not_fit_are_refused(
    codes: list[str], shape: tuple[int, ...], dtype: type
) -> None:
    with pytest.raises(
        TextError, match=r"FECG-242 bank odd: found \d codes .*expected at least 2 different codes"
    ):
        make_bank("odd", codes, np.ones(shape, dtype=dtype), {})


@pytest.mark.parametrize("bad", [np.nan, np.inf, 2.0])
def test_vectors_that_are_not_finite_or_not_of_length_one_are_counted(bad: float) -> None:
    vectors = small_bank().vectors.copy()
    vectors[1, 2] = bad
    with pytest.raises(
        TextError, match="FECG-243 bank odd: found 1 of 3 vectors that are not finite or not of length"
    ):
        make_bank("odd", ["A", "B", "C"], vectors, {})


def test_targets_by_hand() -> None:
    codes = [{"NORM": 75.0, "LVH": 25.0}, {}, {"LVH": 100.0, "AFIB": 0.0}, {"AFIB": 0.0}]
    stated = targets(codes, small_bank(), "stated")
    assert stated.dtype == np.float32
    assert_array_equal(
        stated, np.array([[0.75, 0.25, 0], [0, 0, 0], [0, 0.5, 0.5], [0, 0, 1]], dtype=np.float32)
    )
    paper = targets(codes, small_bank(), "paper")
    assert_array_equal(paper, np.array([[0.75, 0.25, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0]], dtype=np.float32))
    assert targets([], small_bank()).shape == (0, 3)


@given(st.lists(st.dictionaries(st.sampled_from(DEMO.codes), st.floats(0, 100), max_size=5), max_size=6))
def test_rows_of_targets_sum_to_one_or_are_empty(codes: list[dict[str, float]]) -> None:
    total = targets(codes, DEMO).sum(axis=1)
    assert_allclose(total, [1.0 if stated else 0.0 for stated in codes], atol=1e-5)


def test_unknown_codes_are_counted_and_only_named_when_they_look_like_codes() -> None:
    codes = [{"XYZ": 100.0, "NORM": 100.0}, {"XYZ": 50.0, "Jane Doe": 1.0, "19530412": 1.0}]
    with pytest.raises(TextError) as caught:
        targets(codes, small_bank())
    text = str(caught.value)
    assert (
        "FECG-245 codes: found 4 use(s) of 3 unknown code(s): XYZ; expected codes of the bank, which has 3"
        in text
    )
    with pytest.raises(TextError, match=r"1 unknown code\(s\): not shown"):
        targets([{"Jane Doe": 1.0}], small_bank())


@pytest.mark.parametrize("bad", [-0.5, 100.5, float("nan"), float("inf")])
def test_likelihoods_outside_0_to_100_are_counted(bad: float) -> None:
    with pytest.raises(
        TextError, match=r"FECG-246 likelihood: found 2 value\(s\) outside the range; expected percent"
    ):
        targets([{"NORM": bad, "LVH": 5.0}, {"LVH": bad}], small_bank())


def test_every_code_of_the_real_records_has_a_statement(data_root: Path) -> None:
    import ast

    import pandas as pd

    for table in ("ptbxl/ptbxl_database.csv", "ptbxl_text/ptbxl_database_rhythm_subset.csv"):
        codes = [ast.literal_eval(text) for text in pd.read_csv(data_root / table)["scp_codes"]]
        assert_allclose(targets(codes, DEMO).sum(axis=1), 1, atol=1e-5)
        rhythm = DEMO.codes.index("AFIB")
        assert (
            targets(codes, DEMO, "stated")[:, rhythm].sum() > targets(codes, DEMO, "paper")[:, rhythm].sum()
        )


def test_a_copied_bank_loads_from_its_path(tmp_path: Path) -> None:
    import fedecg.text

    for suffix in (".safetensors", ".json"):
        shutil.copy(Path(fedecg.text.__file__).parent / "banks" / f"minilm-demo{suffix}", tmp_path)
    assert load_bank(str(tmp_path / "minilm-demo.safetensors")).sha256 == DEMO.sha256
