"""Fetching a published set from a server that cuts, corrupts, refuses and is silent: real sockets, real files."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from published_server import Fault, Publisher, as_physionet, as_zenodo, publisher

from fedecg.errors import CohortError, PolicyError, RunError, SettingsError
from fedecg.progress import Progress
from fedecg_simulations.cli import main
from fedecg_simulations.published import fetching
from fedecg_simulations.published.catalogue import SETS
from fedecg_simulations.published.fetching import Fetched, failure_of, fetch_set
from fedecg_simulations.published.transfer import Patience

QUICK = Patience(tries=3, first_s=0.01, longest_s=0.05, silence_s=0.3)
ROWS = "ptbxl_database.csv"
SIGNAL = "records100/00000/00001_lr.dat"


def some_bytes(size: int, seed: int) -> bytes:
    return np.random.default_rng(seed).bytes(size)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    """PTB-XL's layout in small: a table, a licence, two signals of 300 kB."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with publisher() as told:
        told.files = as_physionet(
            {
                ROWS: b"ecg_id\n1\n",
                "LICENSE.txt": b"CC BY 4.0\n",
                SIGNAL: some_bytes(300_000, 1),
                "records500/00000/00001_hr.dat": some_bytes(300_000, 2),
            }
        )
        yield told


def fetch(
    server: Publisher, folder: Path, *only: str, name: str = "ptbxl", patience: Patience = QUICK
) -> Fetched:
    return fetch_set(SETS[name], folder, only, server.base, 2, Progress(), patience)


def assert_published(server: Publisher, folder: Path, *paths: str) -> None:
    for path in paths:
        assert (folder / path).read_bytes() == server.files[path], path
    assert not list(folder.rglob("*.part"))


def test_a_set_comes_whole_and_a_second_fetch_asks_for_its_list_alone(
    server: Publisher, tmp_path: Path
) -> None:
    result = fetch(server, tmp_path / "set")
    assert (result.files, result.fetched, result.there, result.missed) == (4, 4, 0, 0)
    assert_published(server, tmp_path / "set", *(path for path in server.files if path != "SHA256SUMS.txt"))
    server.requests.clear()
    again = fetch(server, tmp_path / "set")
    assert (again.fetched, again.there, again.bytes) == (0, 4, 0)
    assert [path for path, _ in server.requests] == ["SHA256SUMS.txt"]


def test_only_what_is_named_is_fetched(server: Publisher, tmp_path: Path) -> None:
    result = fetch(server, tmp_path, "records100", "*.csv")
    assert (result.files, result.fetched) == (2, 2)
    assert not (tmp_path / "records500").exists()
    with pytest.raises(SettingsError) as refused:
        fetch(server, tmp_path, "records250", "*.csv")
    assert str(refused.value).startswith("FECG-630 --only: found 1 of 2 that name no file of the set;")


def test_the_list_of_checksums_alone_may_be_fetched_for_a_check(server: Publisher, tmp_path: Path) -> None:
    result = fetch(server, tmp_path, "SHA256SUMS.txt")
    assert (result.files, result.missed) == (0, 0)
    assert (tmp_path / "SHA256SUMS.txt").read_text().count("\n") == 4
    assert fetch(server, tmp_path, "SHA256SUMS.txt", "*.csv").fetched == 1


def test_a_connection_that_is_cut_in_a_file_is_gone_on_with(server: Publisher, tmp_path: Path) -> None:
    server.faults[SIGNAL] = [Fault("cut", at=100_000), Fault("cut", at=50_000)]
    fetch(server, tmp_path)
    assert_published(server, tmp_path, SIGNAL)
    assert server.asked_for(SIGNAL) == ["", "bytes=100000-", "bytes=150000-"]


def test_a_server_that_ignores_range_is_taken_from_the_start(server: Publisher, tmp_path: Path) -> None:
    server.faults[SIGNAL] = [Fault("cut", at=100_000), Fault("ignore-range")]
    fetch(server, tmp_path)
    assert_published(server, tmp_path, SIGNAL)


def test_a_rest_that_was_not_asked_for_is_not_appended(server: Publisher, tmp_path: Path) -> None:
    server.faults[SIGNAL] = [Fault("cut", at=100_000), Fault("other-range")]
    fetch(server, tmp_path)
    assert_published(server, tmp_path, SIGNAL)
    assert server.asked_for(SIGNAL) == ["", "bytes=100000-", ""]


@pytest.mark.parametrize("first", [[], [Fault("cut", at=10_000)]], ids=["whole", "in the rest"])
def test_corrupted_bytes_are_asked_for_again_from_the_start(
    server: Publisher, tmp_path: Path, first: list[Fault]
) -> None:
    server.faults[SIGNAL] = [*first, Fault("corrupt", at=5)]
    fetch(server, tmp_path)
    assert_published(server, tmp_path, SIGNAL)
    assert server.asked_for(SIGNAL)[-1] == ""


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", status=503),
        Fault("status", status=429, headers={"Retry-After": "0"}),
        Fault("silent", seconds=0.6),
        Fault("slow", at=1, seconds=0.05),
    ],
    ids=["503", "429", "silence", "trickle"],
)
def test_a_busy_or_silent_server_is_asked_again(server: Publisher, tmp_path: Path, fault: Fault) -> None:
    server.faults[SIGNAL] = [fault]
    assert fetch(server, tmp_path).fetched == 4
    assert_published(server, tmp_path, SIGNAL)
    assert len(server.asked_for(SIGNAL)) == 2


def test_the_pause_that_a_server_asks_for_is_kept(server: Publisher, tmp_path: Path) -> None:
    server.faults[SIGNAL] = [Fault("status", status=429, headers={"Retry-After": "1"})]
    start = time.monotonic()
    fetch(server, tmp_path, SIGNAL, patience=Patience(tries=2, first_s=0.01, longest_s=1.0))
    assert time.monotonic() - start >= 1.0


def test_files_that_cannot_be_had_are_counted_by_kind_and_the_rest_comes(
    server: Publisher, tmp_path: Path
) -> None:
    server.always[SIGNAL] = Fault("corrupt", at=7)
    server.always["LICENSE.txt"] = Fault("status", status=404)
    server.always["records500/00000/00001_hr.dat"] = Fault("cut", at=0)
    result = fetch(server, tmp_path)
    assert result.fetched == 1
    assert {kind: len(paths) for kind, paths in result.failed.items()} == {
        "missing": 1,
        "wrong": 1,
        "broken": 1,
    }
    assert len(server.asked_for(SIGNAL)) == QUICK.tries
    assert len(server.asked_for("LICENSE.txt")) == 1
    text = str(failure_of(result))
    assert text.startswith("FECG-628 files of the data set: found of 4 files ")
    assert "1 that the server does not have (LICENSE.txt 1)" in text
    assert "1 that differ from their checksums at every try (records100 1)" in text
    assert "1 that did not come whole at any try (records500 1)" in text
    assert "00001" not in text
    assert not (tmp_path / SIGNAL).exists()


def test_a_server_that_answers_nobody_ends_the_fetch(server: Publisher, tmp_path: Path) -> None:
    files = {f"records100/{number}.dat": some_bytes(10, number) for number in range(40)}
    server.files = as_physionet(files)
    server.always = {path: Fault("status", status=503) for path in files}
    with pytest.raises(RunError) as refused:
        fetch(server, tmp_path, patience=Patience(tries=1, first_s=0.0))
    assert refused.value.code == "FECG-628"
    assert "status 503" in str(refused.value)
    assert "that were not asked for any more: 8 in a row had no answer" in str(refused.value)
    assert len(server.requests) <= fetching.HOPELESS + 3  # the list, and one in each of two threads


def test_no_server_at_all_is_said_with_what_to_look_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with publisher() as gone:
        base = gone.base
    with pytest.raises(RunError) as refused:
        fetch_set(SETS["ptbxl"], tmp_path, (), base, 1, Progress(), Patience(tries=2, first_s=0.0))
    assert str(refused.value).startswith("FECG-628 list of checksums of ptbxl: found connection refused;")
    assert "HTTPS_PROXY" in refused.value.fix


@pytest.mark.parametrize("refused", ["SHA256SUMS.txt", SIGNAL], ids=["list", "file"])
def test_a_server_that_refuses_is_the_publishers_word(
    server: Publisher, tmp_path: Path, refused: str
) -> None:
    server.always[refused] = Fault("status", status=403)
    with pytest.raises(PolicyError) as said:
        fetch(server, tmp_path)
    assert said.value.code == "FECG-627"
    assert "https://physionet.org/content/ptb-xl/1.0.3/" in str(said.value)


def test_a_credentialed_set_is_not_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # should it ask all the same, it gets no further
    assert main(["data", "fetch", "mimic-iv", str(tmp_path / "new")]) == 4
    told = capsys.readouterr().err
    assert "FECG-627 mimic-iv: found for credentialed users of PhysioNet alone;" in told
    assert "https://physionet.org/content/mimiciv/3.1/" in told
    assert "fedecg takes no passwords" in told
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "text",
    [b"<html>Log in to the network</html>", b"0" * 64 + b" ../../outside\n", b""],
    ids=["a page", "a path that leads out", "nothing"],
)
def test_a_list_that_is_none_is_refused_and_not_kept(server: Publisher, tmp_path: Path, text: bytes) -> None:
    server.files["SHA256SUMS.txt"] = text
    with pytest.raises(CohortError) as refused:
        fetch(server, tmp_path)
    assert str(refused.value).startswith("FECG-620 SHA256SUMS.txt: found ")
    assert not (tmp_path / "SHA256SUMS.txt").exists()


def test_what_is_there_and_wrong_is_replaced(server: Publisher, tmp_path: Path) -> None:
    fetch(server, tmp_path)
    (tmp_path / SIGNAL).write_bytes(b"\0" * 300_000)
    result = fetch(server, tmp_path)
    assert (result.fetched, result.there) == (1, 3)
    assert_published(server, tmp_path, SIGNAL)


def test_a_part_that_is_whole_already_is_recognised(server: Publisher, tmp_path: Path) -> None:
    (tmp_path / SIGNAL).parent.mkdir(parents=True)
    (tmp_path / f"{SIGNAL}.part").write_bytes(server.files[SIGNAL])
    fetch(server, tmp_path, SIGNAL)
    assert_published(server, tmp_path, SIGNAL)
    assert server.asked_for(SIGNAL) == ["bytes=300000-"]  # answered with 416


def test_a_killed_fetch_is_continued_where_it_ended(server: Publisher, tmp_path: Path) -> None:
    server.always[SIGNAL] = Fault("slow", at=4096, seconds=0.02)
    script = (
        "import sys; from pathlib import Path; from fedecg.progress import Progress\n"
        "from fedecg_simulations.published.catalogue import SETS\n"
        "from fedecg_simulations.published.fetching import fetch_set\n"
        "fetch_set(SETS['ptbxl'], Path(sys.argv[1]), sys.argv[2:3], sys.argv[3], 1, Progress())\n"
    )
    run = subprocess.Popen([sys.executable, "-c", script, str(tmp_path), SIGNAL, server.base])
    part = tmp_path / f"{SIGNAL}.part"
    deadline = time.monotonic() + 20
    while (not part.is_file() or part.stat().st_size < 140_000) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    there = part.stat().st_size
    assert 140_000 <= there < 300_000
    del server.always[SIGNAL]
    assert fetch(server, tmp_path, SIGNAL).bytes == 300_000 - there
    assert_published(server, tmp_path, SIGNAL)
    assert server.asked_for(SIGNAL) == ["", f"bytes={there}-"]


def code15_archive(inner: str, content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(inner, content)
    return packed.getvalue()


def test_a_record_of_zenodo_comes_by_its_md5_sums_and_is_unpacked(
    server: Publisher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracings = some_bytes(200_000, 3)
    files = {
        "exams.csv": b"exam_id\n1\n",
        "exams_part0.zip": code15_archive("exams_part0.hdf5", tracings),
        "exams_part1.zip": code15_archive("something.else", b"1"),
    }
    server.files = as_zenodo(files, "api/records/4916206")
    command = ["data", "fetch", "code15", str(tmp_path), "--base-url", f"{server.base}/api/records/4916206"]
    assert main([*command, "--only", "exams.csv", "exams_part0.zip", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["files"], told["fetched"], told["unpacked"], told["error"]) == (2, 2, 1, None)
    assert (tmp_path / "exams_part0.hdf5").read_bytes() == tracings
    sums = (tmp_path / "MD5SUMS.txt").read_text().splitlines()
    assert sums[0] == f"{hashlib.md5(files['exams.csv']).hexdigest()}  exams.csv"
    (tmp_path / "exams_part0.zip").unlink()  # 40 GB of archives: whoever needs the room removes them
    assert main([*command, "--json"]) == 5
    told = json.loads(capsys.readouterr().out)
    assert (told["there"], told["fetched"], told["unpacked"]) == (2, 1, 0)
    assert told["failed"] == {"missing": 0, "wrong": 1, "broken": 0}
    assert told["error"]["code"] == "FECG-628"
    assert "no archive that holds exams_part1.hdf5" in told["error"]["message"]


def test_a_record_that_is_none_is_refused(server: Publisher, tmp_path: Path) -> None:
    server.files = {
        "api": json.dumps({"files": [{"key": "../x", "size": 1, "checksum": "md5:" + "0" * 32}]}).encode()
    }
    with pytest.raises(CohortError) as refused:
        fetch_set(SETS["code15"], tmp_path, (), f"{server.base}/api", 1, Progress(), QUICK)
    assert str(refused.value).startswith("FECG-620 record of Zenodo: found no record of Zenodo with names")


def test_more_than_the_disk_holds_is_refused_before_it_is_fetched(server: Publisher, tmp_path: Path) -> None:
    listed = [{"key": "exams.csv", "size": 10**18, "checksum": "md5:" + "0" * 32}]
    server.files = {"api": json.dumps({"files": listed}).encode()}
    with pytest.raises(RunError) as refused:
        fetch_set(SETS["code15"], tmp_path, (), f"{server.base}/api", 1, Progress(), QUICK)
    assert str(refused.value).startswith("FECG-601 disk of the data set: found ")
    assert "expected 1000000000.0 GB for what is still to come" in str(refused.value)
    assert len(server.requests) == 1


def test_two_fetches_into_one_folder_do_not_meet(server: Publisher, tmp_path: Path) -> None:
    from fedecg_simulations.lock import only_one

    with only_one(tmp_path), pytest.raises(RunError) as refused:
        fetch(server, tmp_path)
    assert refused.value.code == "FECG-605"


def test_the_command_says_how_far_it_is_and_what_came(
    server: Publisher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        main(["data", "fetch", "ptbxl", str(tmp_path), "--base-url", server.base, "--connections", "1"]) == 0
    )
    told = capsys.readouterr()
    assert "fetching ptbxl: 4/4" in told.err
    assert "MB/s" in told.err
    assert "CC BY 4.0: https://physionet.org/content/ptb-xl/1.0.3/" in told.err
    assert told.out == "files 4, there 0, fetched 4, bytes 600019, unpacked 0\n"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--base-url", "ftp://host/x"], "--base-url: expected http://... or https://..."),
        (["--base-url", "http://user:secret@host"], "without a user or a query"),
        (["--connections", "0"], "--connections: expected a number from 1 to 16"),
        (["--connections", "many"], "--connections: expected a number from 1 to 16"),
        (["--only"], "--only: expected at least one argument"),
    ],
)
def test_wrong_use_ends_with_status_2(
    tmp_path: Path, wrong: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["data", "fetch", "ptbxl", str(tmp_path / "new"), *wrong])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
