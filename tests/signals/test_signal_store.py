"""The store: what goes in comes out, and nothing half-written, stale or damaged is ever taken for finished."""

import csv
import hashlib
import json
import multiprocessing
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedecg.config import SignalSettings
from fedecg.errors import SignalError
from fedecg.signals import (
    QUALITY_RULES,
    Recording,
    SignalStore,
    build_store,
    preprocess,
    read_recording,
    store_key,
)

SETTINGS = SignalSettings(samples=416)
KEY = store_key(SETTINGS, "test records", "none")


def build(root: Path, records, **changes) -> SignalStore:
    return build_store(root, changes.pop("key", KEY), SETTINGS, records, powerline="none", **changes)


@pytest.fixture
def records(ecg):
    return [ecg(seconds=4, from_s=shift) for shift in (0.0, 0.1, 0.2, 0.3)]


def must_not_run() -> Recording:
    raise AssertionError("a finished store was built again")


def test_a_batch_is_the_preprocessed_signal_to_half_a_microvolt(tmp_path, records):
    store = build(tmp_path, records)
    rows = np.array([3, 0, 3])
    batch = store.batch(rows)
    assert (batch.shape, batch.dtype) == ((3, 12, 416), np.float32)
    expected = np.stack([preprocess(records[row], SETTINGS, "none") for row in rows])
    assert np.abs(batch - expected).max() < 0.000501
    assert (len(store), store.codes, store.samples) == (4, ("", "", "", ""), 416)


def test_functions_and_recordings_may_be_mixed(tmp_path, records):
    store = build(tmp_path, [records[0], lambda: records[0]])
    np.testing.assert_array_equal(*store.batch(np.array([0, 1])))


def test_a_finished_store_is_reused_and_not_built_again(tmp_path, records):
    build(tmp_path, records)
    before = (tmp_path / KEY[:16] / "signals.npy").stat().st_mtime_ns
    assert len(build(tmp_path, [must_not_run] * 4)) == 4
    assert (tmp_path / KEY[:16] / "signals.npy").stat().st_mtime_ns == before


def test_the_key_depends_on_settings_source_and_powerline():
    keys = {
        KEY,
        store_key(SETTINGS, "other records", "none"),
        store_key(SETTINGS, "test records", "50"),
        store_key(SignalSettings(samples=416, lowpass_hz=35.0), "test records", "none"),
    }
    assert len(keys) == 4
    assert store_key(SignalSettings(samples=416), "test records", "none") == KEY


def test_the_sites_powerline_counts_and_that_of_the_settings_does_not():
    other = SignalSettings(samples=416, powerline="50")
    assert store_key(other, "test records", "none") == KEY


def test_a_record_that_cannot_be_read_is_a_zero_row_with_its_code_and_the_rest_goes_on(
    tmp_path, records, ecg
):
    nan = Recording(np.full((12, 400), np.nan, dtype=np.float32), 100)
    one_gap = ecg(seconds=4)
    one_gap.signal_mv[2, 5:9] = np.nan

    def broken_disk() -> Recording:
        raise OSError("no such device")

    sources = [
        records[0],
        lambda: read_recording(tmp_path / "absent"),
        nan,
        one_gap,
        broken_disk,
        ecg(seconds=1),
    ]
    store = build(tmp_path / "store", sources)
    assert store.codes == ("", "FECG-201", "FECG-214", "", "FECG-201", "FECG-213")
    batch = store.batch(np.arange(6))
    assert [bool(row.any()) for row in batch] == [True, False, False, True, False, False]
    assert store.quality["non_finite"].tolist() == [0, 0, 12, 1, 0, 0]
    assert store.quality["too_short"].tolist() == [0, 0, 0, 0, 0, 1]


def test_saturation_of_the_16_bits_is_counted(tmp_path, ecg):
    loud = ecg(seconds=4)
    loud.signal_mv[9:] *= 60
    store = build(tmp_path, [loud, ecg(seconds=4)])
    assert store.quality["clipped"][0] > 0
    assert store.quality["clipped"][1] == 0
    assert np.abs(store.batch(np.array([0]))).max() == pytest.approx(32.767)


def test_progress_is_told_after_each_record(tmp_path, records):
    told: list[tuple[int, int]] = []
    build(tmp_path, records, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_bug_in_a_source_is_not_hidden_as_a_refused_record_and_leaves_nothing(tmp_path, records):
    with pytest.raises(ZeroDivisionError):
        build(tmp_path, [records[0], lambda: 1 // 0])
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_leaves_nothing_and_the_next_build_is_whole(tmp_path, records):
    def interrupted() -> Recording:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, [*records[:3], interrupted])
    assert list(tmp_path.iterdir()) == []
    assert build(tmp_path, records).codes == ("",) * 4


SLOW_BUILD = """
import sys, time
import numpy as np
from fedecg.config import SignalSettings
from fedecg.signals import Recording, build_store, store_key
settings = SignalSettings(samples=416)
noise = np.random.default_rng(0).normal(0, 0.3, (12, 400))
def told(done, total):
    print(done, flush=True)
    time.sleep(0.05)
key = store_key(settings, "test records", "none")
build_store(sys.argv[1], key, settings, [Recording(noise, 100.0)] * 1000, powerline="none", progress=told)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_process_leaves_no_finished_folder(tmp_path, records, how):
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_BUILD, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        process.send_signal(how)
    assert not (tmp_path / KEY[:16]).exists()
    if how == signal.SIGINT:
        assert list(tmp_path.iterdir()) == []
    assert len(build(tmp_path, records)) == 4


def truncate(folder: Path) -> None:
    content = (folder / "signals.npy").read_bytes()
    (folder / "signals.npy").write_bytes(content[:-2])


def lengthen(folder: Path) -> None:
    with (folder / "signals.npy").open("ab") as file:
        file.write(b"00")


def pickle_instead(folder: Path) -> None:
    np.save(folder / "signals.npy", np.array([{}], dtype=object), allow_pickle=True)


def other_shape(folder: Path) -> None:
    np.save(folder / "signals.npy", np.zeros((3, 12, 416), dtype=np.int16))


def edit_manifest(folder: Path) -> None:
    text = (folder / "manifest.csv").read_text()
    (folder / "manifest.csv").write_text(text.replace("0,,0", "0,FECG-201,0", 1))


def edit_about(folder: Path, **changes) -> None:
    about = json.loads((folder / "store.json").read_text())
    (folder / "store.json").write_text(json.dumps({**about, **changes}))


DAMAGE = {
    "signals.npy truncated": (truncate, "signals.npy"),
    "signals.npy lengthened": (lengthen, "of different sizes"),
    "signals.npy of another shape": (other_shape, "of different sizes"),
    "signals.npy a pickle": (pickle_instead, "signals.npy that cannot be mapped"),
    "signals.npy absent": (lambda folder: (folder / "signals.npy").unlink(), "(no such file)"),
    "manifest changed": (edit_manifest, "a manifest.csv that was changed"),
    "manifest absent": (
        lambda folder: (folder / "manifest.csv").unlink(),
        "no such file at manifest.csv",
    ),
    "store.json no JSON": (
        lambda folder: (folder / "store.json").write_text("{"),
        "a store.json that is not JSON",
    ),
    "store.json a list": (lambda folder: (folder / "store.json").write_text("[]"), "without the entries"),
    "store.json of text": (lambda folder: edit_about(folder, records="4"), "without the entries"),
    "another format": (lambda folder: edit_about(folder, format=0), "found format 0"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_store_is_refused_and_then_built_again(tmp_path, records, name):
    folder = build(tmp_path, records).folder
    damage, found = DAMAGE[name]
    damage(folder)
    with pytest.raises(SignalError, match=r"FECG-216 signal store: .* Build the store again\.") as caught:
        SignalStore.open(folder)
    assert found in str(caught.value)
    assert build(tmp_path, records).codes == ("",) * 4
    assert [entry.name for entry in tmp_path.iterdir()] == [KEY[:16]]


def test_a_store_of_another_key_in_the_same_place_is_stale(tmp_path, records):
    edit_about(build(tmp_path, records).folder, key=KEY[:16] + "0" * 48)
    assert build(tmp_path, records).key == KEY


def test_a_store_of_another_number_of_records_is_stale(tmp_path, records):
    build(tmp_path, records)
    assert len(build(tmp_path, records[:2])) == 2


def test_a_store_of_format_1_is_opened_without_the_rules_that_came_later(tmp_path, records):
    folder = build(tmp_path, records).folder
    later = {"low_amplitude", "high_amplitude", "no_beats", "inverted", "limb_swap", "paced"}
    manifest = folder / "manifest.csv"
    rows = list(csv.DictReader(manifest.read_text().splitlines()))
    kept = [name for name in rows[0] if name not in later]
    lines = [",".join(kept), *(",".join(row[name] for name in kept) for row in rows)]
    manifest.write_text("\n".join(lines) + "\n")
    edit_about(folder, format=1, **{"manifest-sha256": hashlib.sha256(manifest.read_bytes()).hexdigest()})
    store = SignalStore.open(folder)
    assert len(store) == len(records)
    assert set(QUALITY_RULES) - set(store.quality) == later
    np.testing.assert_array_equal(store.quality["clipped"], 0)


def test_a_folder_that_is_no_store_is_refused(tmp_path):
    told = "FECG-215 signal store: found no such file at store.json; expected a folder that `fedecg data ingest` fin"
    with pytest.raises(SignalError, match=told):
        SignalStore.open(tmp_path / "absent")


@pytest.mark.parametrize("rows", [[-1], [4], [0, 9, -3]])
def test_rows_outside_the_store_are_refused(tmp_path, records, rows):
    store = build(tmp_path, records)
    with pytest.raises(
        SignalError, match=r"FECG-217 store rows: found \d of \d outside the store; expected 0 to 3"
    ):
        store.batch(np.array(rows))


def test_a_store_that_cannot_be_written_says_so(tmp_path, records):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        SignalError, match=r"FECG-218 signal store: found a file that is there already; expected a folder"
    ):
        build(tmp_path / "file", records)


def test_a_stores_text_shows_neither_its_place_nor_a_value(tmp_path, records):
    assert repr(build(tmp_path, records)) == f"SignalStore(key='{KEY}', samples=416)"


def test_no_records_make_no_store(tmp_path):
    with pytest.raises(SignalError, match=r"FECG-219 signal store: found 0 records; expected at least 1"):
        build(tmp_path, [])


def _build_in_process(root: str, barrier) -> None:
    noise = np.random.default_rng(0).normal(0, 0.3, (12, 400))
    barrier.wait()
    build_store(root, KEY, SETTINGS, [Recording(noise, 100.0)] * 20, powerline="none")


def test_two_processes_at_once_end_with_one_whole_store(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    builders = [context.Process(target=_build_in_process, args=(str(tmp_path), barrier)) for _ in range(2)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert [builder.exitcode for builder in builders] == [0, 0]
    assert len(SignalStore.open(tmp_path / KEY[:16])) == 20
    assert len(list(tmp_path.iterdir())) == 1


def test_a_builder_that_comes_second_keeps_the_first_store(tmp_path, records):
    written_ns: list[int] = []

    def another_builder_finishes() -> Recording:
        first = build(tmp_path, records).folder
        written_ns.append((first / "signals.npy").stat().st_mtime_ns)
        return records[3]

    store = build(tmp_path, [*records[:3], another_builder_finishes])
    assert [(store.folder / "signals.npy").stat().st_mtime_ns] == written_ns
    assert [entry.name for entry in tmp_path.iterdir()] == [KEY[:16]]


def test_two_builds_are_byte_for_byte_the_same(tmp_path, records):
    one, two = build(tmp_path / "a", records).folder, build(tmp_path / "b", records).folder
    for name in ("signals.npy", "manifest.csv", "store.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_the_manifest_names_rows_codes_and_rules_only(tmp_path, records):
    text = (build(tmp_path, records).folder / "manifest.csv").read_text().splitlines()
    assert text[0] == (
        "row,code,non_finite,flat,saturated,zero_padded,einthoven,too_short,"
        "low_amplitude,high_amplitude,no_beats,inverted,limb_swap,paced,clipped"
    )
    assert text[1] == "0,,0,0,0,0,0,0,0,0,0,0,0,0,0"
