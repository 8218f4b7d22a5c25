"""Whether a folder is a data set: layout, version, counts, files, checksums; on real samples and small folders."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from published_server import as_physionet

from fedecg.errors import CohortError, SettingsError
from fedecg.progress import Progress
from fedecg_simulations.cinc2021 import SOURCES
from fedecg_simulations.cli import main
from fedecg_simulations.ptbxl import load_ptbxl
from fedecg_simulations.published.catalogue import SETS
from fedecg_simulations.published.checking import check_set

Checked = dict[str, Any]


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Checked]]:
    """`data check --json`: exit status and document."""

    def checked(name: str, folder: Path, *options: str) -> tuple[int, Checked]:
        status = main(["data", "check", name, str(folder), "--json", *options])
        return status, json.loads(capsys.readouterr().out)

    return checked


def codes(document: Checked) -> list[str]:
    return [fault["code"] for fault in document["faults"]]


def write_ptbxl(folder: Path, records: int) -> Path:
    """PTB-XL's layout with so many rows; the first three have files of 100 Hz."""
    rows = [
        f"{one},records100/00000/{one:05}_lr,records500/00000/{one:05}_hr" for one in range(1, records + 1)
    ]
    files = {"ptbxl_database.csv": "\n".join(["ecg_id,filename_lr,filename_hr", *rows]).encode()}
    files |= {"scp_statements.csv": b",description\nNORM,normal ECG\n", "LICENSE.txt": b"CC BY 4.0"}
    for one in range(1, 4):
        for ending in ("hea", "dat"):
            files[f"records100/00000/{one:05}_lr.{ending}"] = f"{one} {ending}".encode()
    for path, body in as_physionet(files).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(body)
    return folder


def test_a_whole_folder_is_whole_and_every_file_was_compared(check: Any, tmp_path: Path) -> None:
    status, told = check("ptbxl", write_ptbxl(tmp_path, 21_799))
    assert (status, told["whole"], told["faults"], told["notes"]) == (0, True, [], [])
    assert told["counts"] == {
        "records": 21_799,
        "files": 9,
        "files-missing": 0,
        "files-compared": 9,
        "files-different": 0,
    }


def test_everything_that_is_wrong_is_said_at_once(
    check: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_ptbxl(tmp_path, 21_837)
    (folder / "records100/00000/00001_lr.dat").write_bytes(b"other")
    (folder / "records100/00000/00002_lr.dat").unlink()
    (folder / "LICENSE.txt").unlink()
    status, told = check("ptbxl", folder)
    assert status == 3
    assert codes(told) == ["FECG-617", "FECG-618", "FECG-619"]
    version, missing, different = (fault["message"] for fault in told["faults"])
    assert "found 21,837 records (those of version 1.0.0 or 1.0.1); expected 21,799 records" in version
    assert "found 2 of 9 missing (LICENSE.txt 1, records100 1)" in missing
    assert "found 1 of 7 other than their published checksum says (records100 1)" in different
    assert main(["data", "check", "ptbxl", str(folder)]) == 3
    said = capsys.readouterr()
    assert said.err.count("FECG-6") == 3
    assert said.out.startswith("ptbxl 1.0.3: not whole; records 21837, files 9, files-missing 2")
    assert "0000" not in said.err


def test_a_study_refuses_an_older_version_before_it_reads_a_signal(tmp_path: Path) -> None:
    folder = write_ptbxl(tmp_path, 21_837)
    with pytest.raises(CohortError) as refused:
        load_ptbxl(folder, 100, 0, 0.3)
    assert str(refused.value).startswith(
        "FECG-617 version of ptbxl: found 21,837 records, those of version 1.0.0 or 1.0.1; expected 21,799 records"
    )
    with pytest.raises(CohortError, match="FECG-622"):  # of the right number: the next rule is asked
        load_ptbxl(write_ptbxl(tmp_path, 21_799), 100, 0, 0.3)


def test_a_part_is_judged_as_a_part(check: Any, tmp_path: Path) -> None:
    folder = write_ptbxl(tmp_path, 21_799)
    (folder / "LICENSE.txt").unlink()
    (folder / "records100/00000/00003_lr.hea").write_bytes(b"other")
    assert check("ptbxl", folder, "--only", "*.csv")[0] == 0
    assert codes(check("ptbxl", folder, "--only", "records100")[1]) == ["FECG-619"]
    assert check("ptbxl", folder, "--only", "records100", "--no-checksums")[0] == 0
    with pytest.raises(SettingsError) as refused:
        check_set(SETS["ptbxl"], folder, ["records250"], False, Progress())
    assert refused.value.code == "FECG-630"


def test_a_part_that_was_not_judged_by_its_number_says_so(check: Any, data_root: Path) -> None:
    status, told = check("ptbxl", data_root / "ptbxl", "--only", "records100")
    assert (status, codes(told)) == (0, [])
    assert (
        "a part is not judged by its number of records (353 records, published 21,799 records)"
        in told["notes"]
    )


def test_a_broken_list_of_checksums_is_a_fault_of_its_own(check: Any, tmp_path: Path) -> None:
    folder = write_ptbxl(tmp_path, 21_799)
    (folder / "SHA256SUMS.txt").write_text("not a checksum\n")
    status, told = check("ptbxl", folder)
    assert (status, codes(told)) == (3, ["FECG-620"])


def test_the_shared_part_of_ptbxl_is_told_from_the_whole(check: Any, data_root: Path) -> None:
    status, told = check("ptbxl", data_root / "ptbxl")
    assert (status, codes(told)) == (3, ["FECG-617", "FECG-618"])
    assert "found 353 records; expected 21,799 records, as version 1.0.3 has" in told["faults"][0]["message"]
    assert "found 626 of 1414 missing (records500 626)" in told["faults"][1]["message"]
    assert "no SHA256SUMS.txt" in told["notes"][0]
    status, told = check("ptbxl", data_root / "ptbxl", "--only", "records100")
    assert (status, told["counts"]["files"]) == (0, 706)
    tables = (
        "ptbxl_database.csv",
        "scp_statements.csv",
    )  # of the set, though no list of checksums names them
    for named in (("*.csv",), tables):
        status, told = check("ptbxl", data_root / "ptbxl", "--only", "records100", *named)
        assert (status, told["counts"]["files"]) == (0, 708)


def write_cinc(folder: Path, samples: Path, source: str) -> Path:
    """Copies of real records in the published layout."""
    group = folder / "training" / source / "g1"
    group.mkdir(parents=True)
    for file in samples.iterdir():
        if file.suffix in (".hea", ".mat"):
            shutil.copy(file, group)
    return folder


def test_sources_of_cinc2021_are_counted_and_compared_with_what_was_published(
    check: Any, tmp_path: Path, data_root: Path
) -> None:
    folder = write_cinc(tmp_path, data_root / "cinc2021", "st_petersburg_incart")
    status, told = check("cinc2021", folder)
    assert (status, codes(told)) == (3, ["FECG-617"])
    assert "found 10 records of st_petersburg_incart; expected 74 records" in told["faults"][0]["message"]
    assert told["counts"]["st_petersburg_incart"] == 10
    assert told["notes"][0].startswith(
        "sources that are not there, and that a study goes without: chapman_shaoxing, "
    )
    names = sorted(file.stem for file in folder.rglob("*.hea"))
    records = names + [f"I{number:04}" for number in range(64)]
    (folder / "training/st_petersburg_incart/g1/RECORDS").write_text("\n".join(records))
    status, told = check("cinc2021", folder)
    assert (status, codes(told)) == (3, ["FECG-618"])
    assert "found 128 of 148 missing (training/st_petersburg_incart 128)" in told["faults"][0]["message"]
    assert sum(SOURCES.values()) == SETS["cinc2021"].records


def test_headers_of_the_challenges_first_releases_are_another_version(
    check: Any, tmp_path: Path, data_root: Path
) -> None:
    told = check("cinc2021", write_cinc(tmp_path, data_root / "cinc2020", "georgia"))[1]
    assert codes(told) == ["FECG-617", "FECG-617"]
    assert (
        "found 28 of 28 headers that were looked at written as in the Challenge's first"
        in (told["faults"][1]["message"])
    )


def test_mimic_iv_ecg_is_counted_by_its_own_list(check: Any, tmp_path: Path) -> None:
    where = [f"files/p100{one % 2}/p1000{one}/s4000{one}/4000{one}" for one in range(4)]
    rows = [f"1000{one},4000{one},4000{one},2180-07-23 08:44:00,{path}" for one, path in enumerate(where)]
    (tmp_path / "record_list.csv").write_text(
        "\n".join(["subject_id,study_id,file_name,ecg_time,path", *rows])
    )
    reports = ",".join(f"report_{number}" for number in range(18))
    (tmp_path / "machine_measurements.csv").write_text(f"subject_id,study_id,cart_id,{reports}\n")
    assert codes(check("mimic-iv-ecg", tmp_path)[1]) == ["FECG-616", "FECG-617", "FECG-618"]
    (tmp_path / "files" / "p1000").mkdir(parents=True)
    status, told = check("mimic-iv-ecg", tmp_path)
    assert (status, codes(told)) == (3, ["FECG-617", "FECG-618"])
    assert "found 8 of 10 missing (files 8)" in told["faults"][1]["message"]
    assert "p1000" not in json.dumps(told)
    (tmp_path / "machine_measurements.csv").write_text("subject_id,study_id,report_0\n")
    assert (
        "column(s) missing in machine_measurements.csv: cart_id, report_1"
        in (check("mimic-iv-ecg", tmp_path)[1]["faults"][0]["message"])
    )


def test_the_tables_of_mimic_iv_are_found_and_compared(check: Any, tmp_path: Path, data_root: Path) -> None:
    demo = data_root / "mimic_iv_demo"
    status, told = check("mimic-iv", demo)  # two of the list's files lie there, the others it names do not
    assert (status, codes(told)) == (3, ["FECG-618"])
    assert told["counts"] == {
        "tables": 3,
        "files": 34,
        "files-missing": 32,
        "files-compared": 2,
        "files-different": 0,
    }
    assert check("mimic-iv", demo, "--only", "LICENSE.txt", "README.txt")[0] == 0
    (tmp_path / "hosp").mkdir()
    for name in ("patients", "admissions"):
        (tmp_path / "hosp" / f"{name}.csv.gz").write_bytes(gzip.compress((demo / f"{name}.csv").read_bytes()))
    status, told = check("mimic-iv", tmp_path)
    assert (codes(told), told["counts"]["tables"]) == (["FECG-616"], 2)
    assert "found no diagnoses_icd.csv.gz;" in told["faults"][0]["message"]


def test_code15_is_counted_by_exams_and_parts(check: Any, tmp_path: Path) -> None:
    rows = [f"{one},exams_part{one % 3}.hdf5" for one in range(300)]
    (tmp_path / "exams.csv").write_text("\n".join(["exam_id,trace_file", *rows]))
    (tmp_path / "exams_part0.hdf5").write_bytes(b"0")
    status, told = check("code15", tmp_path)
    assert (status, codes(told)) == (3, ["FECG-617", "FECG-618"])
    assert "found 300 records; expected 345,779 records" in told["faults"][0]["message"]
    assert told["counts"] == {"records": 300, "parts": 1, "files": 4, "files-missing": 2}
    archives = [f"{'0' * 32}  exams_part{one}.zip" for one in range(2)]
    (tmp_path / "MD5SUMS.txt").write_text("\n".join(archives))
    status, told = check("code15", tmp_path)
    assert (status, told["counts"]["files-missing"]) == (3, 1)
    assert "1 archives are unpacked and gone" in told["notes"][0]


@pytest.mark.parametrize("name", sorted(SETS))
def test_an_empty_folder_and_none_are_no_data_set(check: Any, tmp_path: Path, name: str) -> None:
    status, told = check(name, tmp_path)
    assert status == 3
    assert set(codes(told)) == {"FECG-616"}
    with pytest.raises(CohortError) as refused:
        check_set(SETS[name], tmp_path / "none", (), True, Progress())
    assert f"FECG-616 folder of {name}: found no such folder; expected a folder" in str(refused.value)


def test_the_list_of_sets_has_licence_place_and_access_of_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list", "--json"]) == 0
    sets = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert set(sets) == {"ptbxl", "code15", "cinc2021", "mimic-iv-ecg", "mimic-iv"}
    assert sets["mimic-iv"]["access"] == "credentialed"
    assert all(one["page"].startswith("https://") and one["licence"] for one in sets.values())
    assert main(["data", "list"]) == 0
    assert "mimic-iv-ecg  1.0    800,035 ECGs, 90 GB" in capsys.readouterr().out
