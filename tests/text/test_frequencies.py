"""Class weights: from public counts alone, bounded, for both lists of codes."""

import csv
import hashlib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from fedecg.errors import TextError
from fedecg.text import class_weights, frequencies_sha256, load_bank, scp_statements, snomed_statements

TABLE = files("fedecg.text").joinpath("frequencies.csv")
ROWS = list(csv.DictReader(line for line in TABLE.read_text().splitlines() if not line.startswith("#")))
RECORDS = {row["code"]: int(row["records"]) for row in ROWS if row["list"] == "scp-ecg"}


def test_every_statement_of_the_package_has_a_public_count() -> None:
    assert set(RECORDS) == set(scp_statements())
    assert {row["code"] for row in ROWS if row["list"] == "snomed-ct"} == set(snomed_statements())
    assert min(int(row["records"]) for row in ROWS) >= 1
    assert (RECORDS["NORM"], RECORDS["SR"], RECORDS["AFIB"], RECORDS["PRC(S)"]) == (9528, 16782, 1514, 10)


def test_counts_are_no_smaller_than_those_of_the_records_at_hand(data_root: Path) -> None:
    import ast
    from collections import Counter

    import pandas as pd

    stated: Counter[str] = Counter()
    for name in ("ptbxl_text/ptbxl_database_rhythm_subset.csv", "ptbxl/ptbxl_database.csv"):
        here = Counter(
            code for text in pd.read_csv(data_root / name)["scp_codes"] for code in ast.literal_eval(text)
        )
        stated |= here  # the larger of the two: some records are in both
    assert all(count <= RECORDS[code] for code, count in stated.items())
    # Atrial fibrillation was chosen for, and 8 of 10 folds are here: some 80 % of all.
    assert 0.7 < stated["AFIB"] / RECORDS["AFIB"] <= 0.85


def test_a_weight_is_the_root_of_how_rare_a_statement_is_within_its_bounds() -> None:
    codes = load_bank("minilm-demo").codes
    weights = class_weights(codes)
    counts = np.array([RECORDS[code] for code in codes], dtype=float)
    expected = np.sqrt(np.exp(np.log(counts).mean()) / counts)
    np.testing.assert_allclose(weights, np.clip(expected, 0.25, 4), rtol=1e-6)
    assert weights.dtype == np.float32
    assert (weights.min(), weights[codes.index("SR")]) == (0.25, 0.25)
    assert weights[codes.index("PRC(S)")] > weights[codes.index("AFIB")] > weights[codes.index("NORM")]
    assert weights.max() <= 4


def test_weights_follow_their_codes_in_any_order_and_in_either_list() -> None:
    codes = list(snomed_statements())
    np.testing.assert_allclose(class_weights(codes[::-1]), class_weights(codes)[::-1])


def test_codes_that_nobody_has_counted_are_refused() -> None:
    with pytest.raises(TextError) as refused:
        class_weights(["NORM", "AFIB", "HOUSE-1"])
    assert refused.value.code == "FECG-270"
    assert (
        "found 1 of the bank's 3 codes without a public frequency; expected codes of one list: scp-ecg, snomed-ct"
        in str(refused.value)
    )
    assert 'align.class-weights = "none"' in refused.value.fix


def test_the_hash_in_the_lock_is_that_of_the_table() -> None:
    assert frequencies_sha256() == hashlib.sha256(TABLE.read_text().encode()).hexdigest()
