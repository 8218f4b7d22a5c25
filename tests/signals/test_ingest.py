"""Ingest: the same store however many processes, stopped or not, whatever the files hold."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fedecg.cli import main
from fedecg.config import SignalSettings
from fedecg.errors import RunError, SignalError
from fedecg.locks import held
from fedecg.progress import Progress
from fedecg.signals import LEADS, SignalStore, build_store, read_recording, store_key
from fedecg.signals.ingest import FACTS, Ingested, ingest, rows_of
from fedecg.signals.ingest_sources import Item, find_items
from fedecg.signals.ingest_workers import in_processes, in_turn
from fedecg.signals.store_writer import Row

SETTINGS = SignalSettings(samples=416)
FILES_TO_KILL = 900  # more than three times what is written between two saves
FILES = ("signals.npy", "manifest.csv", "store.json", "refused.csv")


def write_record(folder: Path, name: str, recording, gain: int = 1000) -> Path:
    """A WFDB record of format 16."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = np.rint(recording.signal_mv * 1000).astype("<i2")
    lines = [f"{name} 12 {recording.rate_hz:g} {counts.shape[1]}"]
    lines += [f"{name}.dat 16 {gain}/mV 16 0 0 0 0 {lead}" for lead in LEADS]
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n")
    (folder / f"{name}.dat").write_bytes(np.ascontiguousarray(counts.T).tobytes())
    return folder / f"{name}.hea"


@pytest.fixture
def records(tmp_path, ecg) -> Path:
    folder = tmp_path / "records"
    for number in range(12):
        write_record(folder / f"{number % 3}", f"r{number:02d}", ecg(seconds=4, from_s=0.1 * number))
    return folder


def run(items, out: Path, jobs: int = 1, **changes) -> Ingested:
    progress = changes.pop("progress", None) or Progress(console=Console(quiet=True))
    return ingest(items, out, SETTINGS, powerline="none", jobs=jobs, progress=progress, **changes)


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_signals_are_those_of_the_serial_build_byte_for_byte(tmp_path, records):
    items = find_items([str(records)])
    ours = run(items, tmp_path / "ours").store
    sources = [partial(read_recording, item.path) for item in items]
    serial = build_store(
        tmp_path / "serial", store_key(SETTINGS, "x", "none"), SETTINGS, sources, powerline="none"
    )
    assert (ours.folder / "signals.npy").read_bytes() == (serial.folder / "signals.npy").read_bytes()
    assert ours.codes == serial.codes
    for rule, counts in serial.quality.items():
        np.testing.assert_array_equal(ours.quality[rule], counts)
    assert serial.facts == {}
    assert [item.source for item in items] == list(ours.facts["source"]) == sorted(ours.facts["source"])
    assert ours.facts["source"][:2] == ("0/r00.hea", "0/r03.hea")
    assert set(ours.facts) == set(FACTS)


def test_two_processes_write_what_one_writes(tmp_path, records):
    (records / "0" / "broken.hea").write_text("broken 12 500 4000\n")
    (records / "notes.txt").write_text("not an ECG")
    items = find_items([str(records)])
    one, two = run(items, tmp_path / "one"), run(items, tmp_path / "two", jobs=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert one.refused == two.refused == {"FECG-202": 1}
    assert (one.files, len(one.store), one.others) == (14, 13, 1)


def test_the_manifest_says_what_the_recordings_were_like(tmp_path, ecg):
    recording = ecg(rate_hz=250, seconds=8)
    recording.signal_mv[3, :500] = np.nan
    np.savez(tmp_path / "x.npz", signal=recording.signal_mv, rate_hz=250.0, unit="mV", leads=np.array(LEADS))
    facts = run(find_items([str(tmp_path / "x.npz")]), tmp_path / "store").store.facts
    peak_mv = float(np.nanmax(np.abs(recording.signal_mv)))
    assert {name: cells[0] for name, cells in facts.items()} == {
        "source": str(tmp_path / "x.npz"),
        "index": "",
        "rate_hz": "250",
        "seconds": "8.00",
        "peak_mv": f"{peak_mv:.3f}",
        "missing": f"{500 / 12 / 2000:.4f}",
        "extra_leads": "",
    }


def test_every_ecg_of_a_file_is_a_row_and_a_refused_one_costs_no_other(tmp_path, ecg):
    signal = np.stack([ecg(seconds=4, from_s=shift).signal_mv for shift in (0.0, 0.1, 0.2)])
    signal[1] = 0
    np.savez(tmp_path / "many.npz", signal=signal, rate_hz=500.0, unit="mV", leads=np.array(LEADS))
    done = run(find_items([str(tmp_path)]), tmp_path / "store")
    assert done.store.codes == ("", "FECG-214", "")
    assert done.store.facts["index"] == ("0", "1", "2")
    assert done.store.facts["source"] == ("many.npz",) * 3
    refused = table(tmp_path / "store" / "refused.csv")
    assert [(row["row"], row["source"], row["index"], row["code"]) for row in refused] == [
        ("1", "many.npz", "1", "FECG-214")
    ]
    assert refused[0]["why"] == "more than half of the leads are flat or not recorded"


def test_every_bad_file_is_a_row_with_its_code_and_the_rest_go_on(tmp_path, records, ecg):
    folder = records / "bad"
    write_record(folder, "short", ecg(seconds=4))
    (folder / "short.dat").write_bytes(b"12")
    write_record(folder, "unit", ecg(seconds=4))
    text = (folder / "unit.hea").read_text()
    (folder / "unit.hea").write_text(text.replace("/mV", "/furlong"))
    (folder / "cut.npz").write_bytes(b"PK\x03\x04 and nothing of it")
    (tmp_path / "more.txt").write_text(f"absent\n{'x' * 300}\n")
    done = run(find_items([str(records), str(tmp_path / "more.txt")]), tmp_path / "store")
    assert done.refused == {"FECG-201": 2, "FECG-205": 1, "FECG-207": 1, "FECG-277": 1}
    assert sum(code == "" for code in done.store.codes) == 12
    refused = [row for row, code in enumerate(done.store.codes) if code]
    assert not done.store.batch(np.array(refused)).any()


def too_deep(folder: Path) -> str:
    """A folder in it that nobody can list, not even root: its path is longer than the system takes. Its name."""
    name, at = "d" * 250, os.open(folder, os.O_RDONLY)
    depth = 0
    while depth * 251 + len(str(folder)) < os.pathconf(folder, "PC_PATH_MAX"):
        os.mkdir(name, dir_fd=at)
        below = os.open(name, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at, depth = below, depth + 1
    os.close(at)
    return "/".join([name] * depth) + "/"


def test_a_folder_that_cannot_be_looked_through_is_refused_and_the_rest_go_on(tmp_path, records, capsys):
    name = too_deep(records)
    assert main(["data", "ingest", str(records), "--out", str(tmp_path / "store"), "--jobs", "1"]) == 5
    assert "refused  FECG-201" in capsys.readouterr().out
    refused = table(tmp_path / "store" / "refused.csv")
    assert [(row["row"], row["source"], row["code"]) for row in refused] == [("12", name, "FECG-201")]
    assert SignalStore.open(tmp_path / "store").codes.count("") == 12


@pytest.mark.parametrize(("source", "found"), [("absent", "1 of 2 names of nothing"), ("", "an empty name")])
def test_a_source_that_is_not_there_or_has_no_name_is_refused_before_anything_is_written(
    tmp_path, records, source, found, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["data", "ingest", str(records), source, "--out", "store"]) == 3
    assert f"FECG-294 files to ingest: found {found}" in capsys.readouterr().err
    assert [place.name for place in tmp_path.iterdir()] == ["records"]


def test_a_fault_that_nobody_foresaw_is_a_refused_file(tmp_path, records, monkeypatch):
    def broken(path: Path) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("fedecg.signals.ingest.read_recording", broken)
    assert run(find_items([str(records)]), tmp_path / "store").refused == {"FECG-298": 12}


def moody(item: Item) -> Iterator[Row]:
    """What a reader of somebody else's code may do to its process; the mood is in the file's name."""
    tried = item.path.with_suffix(".tried")
    if item.path.stem == "crashes" or (item.path.stem == "crashes-once" and not tried.exists()):
        tried.touch()
        os.kill(os.getpid(), signal.SIGSEGV)
    if item.path.stem == "hangs":
        time.sleep(600)
    yield from rows_of(item, SETTINGS, "none")


@pytest.mark.slow
def test_a_file_that_ends_or_hangs_its_process_is_refused_and_the_rest_go_on(tmp_path, records, ecg):
    for name in ("crashes", "crashes-once", "hangs"):
        write_record(records / "0", name, ecg(seconds=4))
    items = find_items([str(records)])
    got = list(in_processes(items, moody, 2, limit_s=3.0))
    assert [number for number, row in got if row is None] == list(range(15))
    codes = {items[number].path.stem: row.entry["code"] for number, row in got if row is not None}
    assert {name: code for name, code in codes.items() if code} == {
        "crashes": "FECG-297",
        "hangs": "FECG-297",
    }
    assert codes["crashes-once"] == ""


def test_processes_that_do_not_start_are_told(records, monkeypatch):
    items = find_items([str(records)])
    monkeypatch.setattr("fedecg.signals.ingest_workers._serve", no_such_thing)
    with pytest.raises(RunError, match=r"FECG-612 processes that read ECGs: .* Free memory, or try --jobs 1"):
        list(in_processes(items, moody, 2))


def no_such_thing(*_: object) -> None:
    """A process that ends before it is ready."""
    os._exit(3)


def test_rows_of_large_files_do_not_overtake_nor_pile_up(monkeypatch, tmp_path):
    monkeypatch.setattr("fedecg.signals.ingest_workers.MOST_WAITING", 10)
    items = [Item(f"{number}", tmp_path / f"{number}", False) for number in range(6)]
    work = partial(numbered, 300)
    assert [(number, row and row.entry["at"]) for number, row in in_processes(items, work, 2)] == [
        (number, row and row.entry["at"]) for number, row in in_turn(items, work)
    ]


def numbered(count: int, item: Item) -> Iterator[Row]:
    for at in range(count):
        yield Row(None, {"code": "", "source": item.source, "at": at})


def copies(folder: Path, recording, count: int) -> Path:
    first = write_record(folder, "r0000", recording)
    text, signals = first.read_text(), first.with_suffix(".dat").read_bytes()
    for number in range(1, count):
        name = f"r{number:04d}"
        (folder / f"{name}.hea").write_text(text.replace("r0000", name))
        # Each another, so that a row in the wrong place is seen.
        (folder / f"{name}.dat").write_bytes(signals[24 * number :] + signals[: 24 * number])
    return folder


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_in_the_middle_it_goes_on_and_ends_with_the_same_bytes(tmp_path, ecg, jobs):
    folder = copies(tmp_path / "records", ecg(seconds=4), FILES_TO_KILL)
    command = [sys.executable, "-m", "fedecg.cli", "data", "ingest", str(folder), "--samples", "416"]
    out, state = tmp_path / "killed", tmp_path / ".killed.ingest" / "state.json"
    with subprocess.Popen(
        [*command, "--out", str(out), "--jobs", str(jobs)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        while not state.exists() and process.poll() is None:
            time.sleep(0.002)
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    done = json.loads(state.read_text())["files"]
    assert 0 < done < FILES_TO_KILL
    assert not out.exists()
    again = subprocess.run(
        [*command, "--out", str(out), "--jobs", str(jobs)], capture_output=True, text=True, check=True
    )
    assert f"going on after {done} of {FILES_TO_KILL} files" in again.stderr
    assert not state.parent.exists()
    run(find_items([str(folder)]), tmp_path / "whole")
    assert content(out) == content(tmp_path / "whole")
    assert len(SignalStore.open(out)) == FILES_TO_KILL


def test_what_was_written_after_the_last_save_is_written_anew(tmp_path, records, monkeypatch):
    monkeypatch.setattr("fedecg.signals.ingest.SAVE_ROWS", 5)
    items = find_items([str(records)])

    class PowerCutError(Exception):
        pass

    def cut(self, key, settings) -> None:
        self.position()
        raise PowerCutError

    with monkeypatch.context() as patch:
        patch.setattr("fedecg.signals.store_writer.StoreWriter.finish", cut)
        with pytest.raises(PowerCutError):
            run(items, tmp_path / "store")
    assert json.loads((tmp_path / ".store.ingest" / "state.json").read_text())["files"] == 10
    run(items, tmp_path / "store")
    run(items, tmp_path / "whole")
    assert content(tmp_path / "store") == content(tmp_path / "whole")


def test_a_changed_file_or_setting_begins_anew_and_never_mixes(tmp_path, records, ecg):
    items = find_items([str(records)])
    run(items, tmp_path / "store")
    before = (tmp_path / "store" / "signals.npy").stat().st_mtime_ns
    run(items, tmp_path / "store")
    assert (tmp_path / "store" / "signals.npy").stat().st_mtime_ns == before
    write_record(records / "0", "r00", ecg(seconds=4, from_s=0.05))
    os.utime(records / "0" / "r00.dat", ns=(1, 1))
    with pytest.raises(SignalError, match=r"FECG-296 .* found a store of other files, of files that were"):
        run(items, tmp_path / "store")


@pytest.mark.parametrize("made", ["folder", "file"])
def test_a_folder_that_holds_something_else_is_left_alone(tmp_path, records, made):
    out = tmp_path / "out"
    if made == "folder":
        out.mkdir()
        (out / "thesis.tex").write_text("years of work")
    else:
        out.write_text("years of work")
    with pytest.raises(SignalError, match=r"FECG-296 folder for the store: .* Choose another --out"):
        run(find_items([str(records)]), out)
    assert (out if made == "file" else out / "thesis.tex").read_text() == "years of work"


def test_one_store_has_one_writer(tmp_path, records):
    told = r"FECG-608 signal store: found another process that writes it"
    with held(tmp_path / ".store.ingest" / "lock"), pytest.raises(RunError, match=told):
        run(find_items([str(records)]), tmp_path / "store")
    assert len(run(find_items([str(records)]), tmp_path / "store").store) == 12


def test_a_disk_that_cannot_be_written_is_told(tmp_path, records):
    (tmp_path / "in-the-way").write_text("")
    with pytest.raises(SignalError, match=r"FECG-218 signal store: .* Check rights and free space"):
        run(find_items([str(records)]), tmp_path / "in-the-way" / "store")


def test_names_that_harm_terminals_spreadsheets_and_tables_do_not(tmp_path, ecg, capfd):
    folder = tmp_path / "records"
    names = [
        "=cmd|' calc'!A1",
        'a,b"c',
        "line\nbreak",
        "\x1b[31mred",
        "<script>alert(1)</script>".replace("/", ""),
    ]
    folder.mkdir()
    for name in names:
        np.savez(
            folder / f"{name}.npz",
            signal=ecg(seconds=4).signal_mv,
            rate_hz=500.0,
            unit="mV",
            leads=np.array(LEADS),
        )
    (folder / os.fsdecode(b"\xff\xfe.npz")).write_bytes(b"PK\x03\x04")
    (folder / "=broken.npz").write_bytes(b"PK\x03\x04")
    status = main(
        ["data", "ingest", str(folder), "--out", str(tmp_path / "store"), "--samples", "416", "--jobs", "1"]
    )
    assert status == 5
    store = SignalStore.open(tmp_path / "store")
    assert set(store.facts["source"]) == {f"{name}.npz" for name in [*names, "\\xff\\xfe", "=broken"]}
    shown = [row["source"] for row in table(tmp_path / "store" / "refused.csv")]
    assert sorted(shown) == ["'=broken.npz", "\\xff\\xfe.npz"]
    printed = "".join(capfd.readouterr())
    assert not any(word in printed for word in ("script", "broken", "break", "\x1b", "cmd"))


def test_progress_tells_how_far_it_is_and_what_was_refused(tmp_path, records):
    """One record is cut short; a letter beside the ECGs is none, and no refused one."""
    (records / "0" / "r00.dat").write_bytes(bytes(100))
    (records / "letter.xml").write_text("Dear archive")
    with (tmp_path / "log").open("w") as log:
        run(
            find_items([str(records)]),
            tmp_path / "store",
            progress=Progress(console=Console(file=log, width=200)),
        )
    assert re.fullmatch(r"ECG files: 13/13, \d+ s  12 ECGs, 1 refused\n", (tmp_path / "log").read_text())


def test_real_records_of_every_folder_end_up_as_they_are_read(tmp_path, data_root):
    """Two real sets and the oddities, as one folder: usable rows are the preprocessed recordings."""
    folder = tmp_path / "all"
    folder.mkdir()
    for name in ("cinc2020", "wfdb_odd", "cinc2021"):
        (folder / name).mkdir()
        for file in sorted((data_root / name).iterdir()):
            (folder / name / file.name).symlink_to(file)
    done = ingest(find_items([str(folder)]), tmp_path / "store", SETTINGS, powerline="none", jobs=1)
    usable = {
        source.partition("/")[0]
        for source, code in zip(done.store.facts["source"], done.store.codes, strict=True)
        if not code
    }
    assert usable == {"cinc2020", "cinc2021"}
    assert len(done.store) - sum(done.refused.values()) == 38
    assert done.others == 1
    assert set(done.refused) == {"FECG-204", "FECG-208"}
