"""The record of what leaves: written first, for the owner alone, rotated; what a kill cut short is passed over."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import stat
from pathlib import Path

import numpy as np
import pytest

from fedecg.errors import PolicyError
from fedecg.privacy.egress import Departure, EgressRecord, array_entry, flattened


def departure(number: int, study: str = "hf", run: str = "1") -> Departure:
    return Departure(at="2026-01-01T00:00:00Z", study=study, run=run, round=number, values={"a.b": [1, 2.5]})


def test_lines_come_back_as_they_were_written_and_for_the_owner_alone(tmp_path: Path) -> None:
    record = EgressRecord(tmp_path / "state" / "egress")
    record.append(departure(1))
    record.append(departure(2, run="2"))
    record.append(departure(3, study="other"))
    assert [entry["round"] for entry in record.read()] == [1, 2, 3]
    assert [entry["round"] for entry in record.read(run="2")] == [2]
    assert [entry["round"] for entry in record.read(study="hf")] == [1, 2]
    assert next(record.read())["values"] == {"a.b": [1, 2.5]}
    for path in (tmp_path / "state", tmp_path / "state/egress", tmp_path / "state/egress/egress.jsonl"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_every_number_and_word_of_a_document_is_kept_under_its_key() -> None:
    document = {
        "site": "north",
        "sums": {"cells": [1, 0, 2], "pair": {"c": 7}},
        "parts": [{"n": 1}, {"n": 2}],
        "no": None,
    }
    assert flattened(document) == {
        "site": "north",
        "sums.cells": [1, 0, 2],
        "sums.pair.c": 7,
        "parts.0.n": 1,
        "parts.1.n": 2,
        "no": None,
    }


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_an_array_is_known_by_shape_norm_and_hash(kind: type) -> None:
    values = np.array([3.0, 4.0], dtype=kind)
    entry = array_entry("weights/flat", values, values.tobytes())
    assert (entry.shape, entry.dtype, entry.l2) == ([2], np.dtype(kind).name, 5.0)
    assert entry.bytes == values.nbytes
    assert entry.sha256 == hashlib.sha256(values.tobytes()).hexdigest()


def test_the_norm_of_a_bfloat16_change_is_that_of_its_numbers() -> None:
    bits = (np.array([3.0, 4.0], dtype=np.float32).view(np.uint32) >> 16).astype(np.uint16)
    entry = array_entry("weights/flat", bits, bits.tobytes())
    assert (entry.dtype, entry.l2) == ("bfloat16", 5.0)


def test_a_norm_that_is_not_finite_is_null_and_the_line_stays_json(tmp_path: Path) -> None:
    values = np.array([math.inf, 1.0], dtype=np.float32)
    entry = array_entry("weights/flat", values, values.tobytes())
    assert entry.l2 is None
    record = EgressRecord(tmp_path / "egress")
    record.append(Departure(at="now", arrays=(entry,)))
    assert next(record.read())["arrays"][0]["l2"] is None


def test_a_line_that_was_cut_short_is_told_and_costs_no_other(tmp_path: Path) -> None:
    record = EgressRecord(tmp_path / "egress")
    record.append(departure(1))
    file = tmp_path / "egress/egress.jsonl"
    file.write_bytes(file.read_bytes() + b'{"at": "2026')
    record.append(departure(2))
    assert [entry.get("round", "damaged") for entry in record.read(run="1")] == [1, "damaged", 2]


def test_a_full_file_is_packed_and_the_oldest_go_first(tmp_path: Path) -> None:
    record = EgressRecord(tmp_path / "egress", most_bytes=300, most_kept=3)
    for number in range(20):
        record.append(departure(number))
    packed = sorted(file.name for file in (tmp_path / "egress").glob("*.gz"))
    assert len(packed) == 3
    rounds = [entry["round"] for entry in record.read()]
    assert rounds == list(range(rounds[0], 20))
    assert rounds[0] > 0
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in (tmp_path / "egress").glob("*.gz"))
    assert (
        json.loads(gzip.decompress((tmp_path / "egress" / packed[0]).read_bytes()).splitlines()[0])["study"]
        == "hf"
    )


def test_a_record_that_cannot_be_written_says_so_and_keeps_the_message_here(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/egress").write_text("a file where the folder should be")
    with pytest.raises(PolicyError) as refused:
        EgressRecord(tmp_path / "state" / "egress").append(departure(1))
    assert str(refused.value) == (
        "FECG-448 record of what leaves the site: found a file that is there already; expected a folder state/egress"
        " that can be written, with space left. Free space on that disk; what cannot be recorded does not leave."
    )


def test_a_packed_file_that_is_damaged_is_named(tmp_path: Path) -> None:
    record = EgressRecord(tmp_path / "egress")
    record.append(departure(1))
    (tmp_path / "egress/egress-000001.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(
        PolicyError, match=r"FECG-450 record egress-000001.jsonl.gz of what has left the site: found"
    ):
        list(record.read())
