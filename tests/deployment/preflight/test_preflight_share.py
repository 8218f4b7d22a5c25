"""The report that may leave a site: what it never holds, and that it is shown first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from site_checks import RECORDS, SECRET, Captured, MakeFolder, cohort, part

from fedecg.cohort import write_cohort
from fedecg.federation.identity import read_public_key
from fedecg_client.cli import main
from fedecg_client.preflight.check import Check, passed
from fedecg_client.preflight.share import LEAST_EVENTS, LEAST_PATIENTS, shared_report


def numbers(tree: Any) -> Iterator[float]:
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else []:
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield value
        else:
            yield from numbers(value)


@given(
    st.lists(
        st.integers(0, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), min_size=3, max_size=3
    )
)
def test_no_small_number_of_patients_is_stated_or_can_be_worked_out(counts: list[tuple[int, int]]) -> None:
    parts = {name: part(*count) for name, count in zip(RECORDS, counts, strict=True)}
    told = shared_report("north", "now", [passed("cohort", "data", "", parts=parts)])["cohort"]
    if told == "too few to tell":
        return
    stated = list(told.values())
    assert len(stated) in (1, 3)  # all parts or their sum: never some, whose rest could be worked out
    for counted in stated:
        assert counted["patients"] >= LEAST_PATIENTS
        assert LEAST_EVENTS <= counted["events"] <= counted["patients"] - LEAST_EVENTS
        assert all(value == round(value, 1) for value in counted["follow-up-years"].values())
        for quantile in counted["follow-up-years"]:
            assert counted["patients"] * min(float(quantile), 1 - float(quantile)) >= LEAST_PATIENTS


def test_the_shared_report_is_shown_before_it_is_written_and_holds_no_secret(
    make_folder: MakeFolder, capsys: Captured, tmp_path: Path
) -> None:
    folder = make_folder("ecg-SECRET.invalid:9092", name="north")
    text = (folder / "site.toml").read_text()
    (folder / "site.toml").write_text(text.replace('"hf"', '"study-secret"'))
    part_of = np.array(["train"] * 100 + ["validation"] * 7 + ["test"] * 7)
    write_cohort(cohort(part=part_of, event=np.arange(114) < 3), tmp_path / SECRET / "cohort.csv")
    out = tmp_path / "out.json"
    capsys.readouterr()
    assert main(["preflight", str(folder), "--share", str(out)]) == 1
    told = capsys.readouterr().out
    shown = json.loads(told[told.index("{") :])
    assert "Nothing is sent" in told
    assert shown == json.loads(out.read_text())
    assert shown["site"] == "north"
    assert shown["cohort"] == "too few to tell"
    assert shown["checks"]["dns"] == "FECG-653"
    assert shown["store"]["refused"] == "too few to tell"
    text = out.read_text()
    fingerprint = read_public_key(folder / "node.pub").fingerprint
    secrets = [
        SECRET,
        "SECRET",
        "secret",
        str(tmp_path),
        "/",
        "77007",
        "9092",
        fingerprint,
        fingerprint[7:20],
        "NORM",
    ]
    assert [secret for secret in secrets if secret in text] == []
    small = set(numbers({key: shown[key] for key in ("cohort", "store", "checks")}))
    assert all(number >= LEAST_PATIENTS for number in small)


def test_a_shared_report_never_replaces_a_file(make_folder: MakeFolder, capsys: Captured) -> None:
    folder = make_folder("127.0.0.1:1")
    before = (folder / "node.key").read_bytes()
    assert main(["preflight", str(folder), "--share", str(folder / "node.key")]) == 3
    assert "FECG-121 --share: found a file of that name" in capsys.readouterr().err
    assert (folder / "node.key").read_bytes() == before


def test_with_json_the_shared_report_is_part_of_the_one_document(
    make_folder: MakeFolder, capsys: Captured, tmp_path: Path
) -> None:
    folder = make_folder("127.0.0.1:1")
    capsys.readouterr()
    main(["preflight", str(folder), "--json", "--share", str(tmp_path / "out.json")])
    assert json.loads(capsys.readouterr().out)["shared"] == json.loads((tmp_path / "out.json").read_text())


def test_a_fault_that_nobody_foresaw_shows_its_kind_alone() -> None:
    from fedecg_client.preflight.check import tried

    def look() -> Check:
        raise KeyError(SECRET)

    check = tried("cohort", "data", look)
    assert (check.code, check.found) == ("FECG-599", "KeyError")
