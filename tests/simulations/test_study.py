"""A whole study through the real ServerApp and ClientApp, small enough for every change."""

import fcntl
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedecg.config import load_study
from fedecg.errors import RunError
from fedecg.progress import Progress
from fedecg.report.summary import coordinator_summary
from fedecg_client.app import app as client_app
from fedecg_server.run_folder import RunFolder, read_json
from fedecg_server.study import Study
from fedecg_simulations.cli import main
from fedecg_simulations.grid import FIRST_NODE, InProcessGrid

CONFIG = """
name = "tiny"
seed = 100
[data]
store = "{store}"
test-patients = 60
[data.sites]
city = 90
coast = 60
rural = 1
[signals]
samples = 256
[model]
size = "small"
[align]
rounds = 1
local-steps = 2
batch-size = 16
[survival]
rounds = 2
local-steps = 2
batch-size = 16
[evaluation]
bootstrap = 20
explain = false
"""


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def configuration(folder: Path, store: Path, text: str = CONFIG) -> Path:
    file = folder / "tiny.toml"
    file.write_text(text.format(store=store))
    return file


def run(folder: Path, store: Path, *overrides: str, text: str = CONFIG) -> dict[str, Any]:
    """Run the study by its command line; returns summary.json without its times."""
    arguments = ["run", str(configuration(folder, store, text)), "--out", str(folder / "out")]
    status = main([*arguments, "--set", *overrides] if overrides else arguments)
    summary: dict[str, Any] = json.loads((folder / "out" / "summary.json").read_text())
    assert status == (0 if summary["status"] == "completed" else 5)
    summary.pop("seconds")
    return summary


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, store: Path) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("finished")
    return folder, run(folder, store)


def test_a_study_writes_everything_it_promises(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = finished
    out = folder / "out"
    for name in (
        "summary.json", "report.html", "rounds.json", "study.toml", "model/weights.safetensors", "partition.json",
        "figures/partition.svg",
    ):  # fmt: skip
        assert (out / name).stat().st_size > 0
    assert list((out / "figures").glob("*.png"))
    assert summary["outcomes"] == "simulated"
    assert summary["rounds"] == {"align": 1, "survival": 2}
    assert [site["name"] for site in summary["sites"]] == ["city", "coast", "rural"]
    assert set(summary["columns"]) == {
        "pooled", "federated", "local-mean", "local-best", "local-own", "age-sex", "site-only", "true-hazard"
    }  # fmt: skip
    for column in summary["columns"].values():
        assert {"c-index", "c-index-stratified", "ci-low", "ci-high"} <= set(column)
    assert summary["bytes-per-round"] > 0
    assert len(summary["code-fingerprint"]) == len(summary["settings-sha256"]) == 64


def test_the_partition_of_a_run_is_that_of_its_sites(finished: tuple[Path, dict[str, Any]]) -> None:
    document = json.loads((finished[0] / "out" / "partition.json").read_text())
    assert [(site["site"], site["patients"]) for site in document["sites"]] == [
        (site["name"], site["patients"]) for site in finished[1]["sites"]
    ]
    assert document["partition"] == "by site"


def test_the_federated_c_index_bounds_hold_the_raw_one(finished: tuple[Path, dict[str, Any]]) -> None:
    federated = finished[1]["federated-c-index"]
    assert federated["lower"] <= federated["pooled-reference"] <= federated["upper"]
    columns = finished[1]["columns"]
    assert federated["stratified"] == columns["federated"]["c-index-stratified"]


def test_the_models_of_sites_alone_are_also_judged_where_they_are_at_home(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    """From the sites' own runs; pairs of a site that could train no model would be level."""
    folder, summary = finished
    own = summary["columns"]["local-own"]
    assert own["c-index"] is None  # scores of different models
    pairs, right = summary["test"]["comparable-pairs-stratified"], 0.0
    at_home = 0
    for site in ("city", "coast"):
        file = folder / "out" / "columns" / site / "assessment.json"
        counts = json.loads(file.read_text())["concordance"]
        at_home += counts["comparable-within"]
        right += (counts["stratified"] or 0.0) * counts["comparable-within"]
    assert 0 < at_home <= pairs
    assert own["c-index-stratified"] == pytest.approx((right + 0.5 * (pairs - at_home)) / pairs)
    assert summary["differences"]["federated-minus-local-own"]["difference"] == pytest.approx(
        summary["columns"]["federated"]["c-index-stratified"] - own["c-index-stratified"]
    )


def test_a_site_alone_knows_nothing_within_sites(finished: tuple[Path, dict[str, Any]]) -> None:
    assert finished[1]["columns"]["site-only"]["c-index-stratified"] == 0.5


def files_of(store: Path) -> dict[Path, int]:
    """When each signal file of the store was written."""
    return {file: file.stat().st_mtime_ns for file in store.rglob("signals.npy")}


@pytest.mark.slow
def test_a_second_run_is_the_same_and_reuses_the_store(
    finished: tuple[Path, dict[str, Any]], store: Path, tmp_path: Path
) -> None:
    """Slow, as the next test asks more of a second run, and every choice of the settings reuses the store."""
    before = files_of(store)
    assert run(tmp_path, store) == finished[1]
    assert files_of(store) == before


def test_sites_in_another_order_give_the_same_bits(
    finished: tuple[Path, dict[str, Any]], store: Path, tmp_path: Path
) -> None:
    lines = CONFIG.splitlines()
    at = lines.index("city = 90")
    lines[at : at + 3] = ["rural = 1", "coast = 60", "city = 90"]
    assert run(tmp_path, store, text="\n".join(lines)) == finished[1]


def test_a_site_without_events_and_one_with_a_single_training_patient_take_part(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    out = finished[0] / "out"
    sites = {site["name"]: site for site in json.loads((out / "result.json").read_text())["sites"]}
    assert sites["rural"]["parts"]["train"] == {"patients": 1, "events": 0}
    for record in json.loads((out / "rounds.json").read_text()):
        assert record["answered"] == ["city", "coast", "rural"]
        assert not record["rejected"]


@pytest.mark.parametrize(
    "overrides",
    [
        ["survival.loss=cox-batch", "federation.algorithm=fedprox", "federation.proximal-mu=0.1"],
        ["survival.loss=cox-site", "survival.baseline=site"],
        ["survival.loss=grouped"],
        ["align.loss=paper", "survival.baseline=site", "survival.reconstruction=0.5"],
        ["model.preset=paper", "align.rounds=0"],
        ["partition.by=iid", "partition.sites=2"],
        ["partition.by=dirichlet", "partition.sites=2", "partition.alpha=5"],
        ["partition.by=quantity", "partition.sites=2", "partition.alpha=5"],
        ["partition.by=iid", "partition.sites=2", "partition.follow-up=disjoint"],
        ["partition.by=iid", "partition.sites=2", "partition.follow-up=staggered"],
    ],
    ids=lambda overrides: " ".join(overrides),
)
def test_every_choice_of_the_settings_runs_on_the_store_that_is_there(
    overrides: list[str], finished: tuple[Path, dict[str, Any]], store: Path, tmp_path: Path
) -> None:
    before = files_of(store)
    summary = run(tmp_path, store, *overrides, "evaluation.comparison=false", "evaluation.bootstrap=0")
    assert files_of(store) == before
    assert summary["columns"]["federated"]["c-index"] is not None
    if (
        "model.preset=paper" in overrides
    ):  # BatchNorm cannot learn from rural's single patient: said, not skipped
        assert summary["status"] == "completed-partial"
        rounds = json.loads((tmp_path / "out" / "rounds.json").read_text())
        assert all(
            entry["rejected"] == {"rural": "FECG-324"} for entry in rounds if entry["stage"] == "survival"
        )
    else:
        assert summary["status"] == "completed"
    assert summary["columns"]["pooled"] is None


def test_one_step_at_every_site_is_one_pooled_step_through_the_whole_stack(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Three unequal sites, one without events; sums, messages, aggregation and all."""
    out = finished[0] / "out"
    overrides = [
        "align.rounds=0", "survival.rounds=1", "survival.local-steps=1", "survival.optimizer=sgd",
        "survival.batch-size=65536", "survival.weight-decay=0", "survival.clip-norm=1e9", "model.dropout=0",
        "survival.learning-rate=1.0",
    ]  # fmt: skip
    settings = load_study(out / "study.toml", overrides)
    vectors = []
    for sites in (out / "sites", out / "columns" / "pooled" / "sites"):
        folders = sorted(file.parent for file in sites.glob("*/site.toml"))
        nodes = {
            number: {"site-folder": str(folder)} for number, folder in enumerate(folders, start=FIRST_NODE)
        }
        folder = RunFolder(tmp_path / sites.parent.name)
        folder.begin(settings)
        study = Study(InProcessGrid(client_app, nodes), settings, folder, Progress())
        study.join()
        study.survive()
        vectors.append(study.trained["survival"])
    federated, pooled = vectors
    assert np.abs(pooled - study._vector("survival")).max() > 1e-3  # the step moved the weights
    np.testing.assert_allclose(federated, pooled, atol=1e-6)


def test_a_wrong_key_is_a_message_and_exit_status_3(store: Path, tmp_path: Path, capsys: Any) -> None:
    file = configuration(tmp_path, store, CONFIG + "\n[survivall]\nrounds = 1\n")
    assert main(["run", str(file), "--out", str(tmp_path / "out")]) == 3
    assert "FECG-103" in (message := capsys.readouterr().err)
    assert "survivall: unknown key" in message
    assert not (tmp_path / "out").exists()


def test_a_site_is_judged_by_a_federation_that_never_saw_it(store: Path, tmp_path: Path) -> None:
    settings = [
        "evaluation.leave-one-site-out=true",
        "evaluation.local-models=false",
        "evaluation.bootstrap=0",
    ]
    summary = run(tmp_path, store, *settings, "federation.quorum=3")
    unseen = summary["columns"]["unseen-site"]
    assert 0 <= unseen["c-index-stratified"] <= 1
    assert unseen["c-index"] is None
    assert summary["columns"]["local-mean"] is None
    for site in ("city", "coast", "rural"):
        others = json.loads((tmp_path / "out" / "columns" / f"without-{site}" / "result.json").read_text())
        assert site not in [entry["name"] for entry in others["sites"]]
        assert len(others["sites"]) == 2


def test_a_single_site_cannot_be_left_out(store: Path, tmp_path: Path, capsys: Any) -> None:
    file = configuration(tmp_path, store)
    settings = ["partition.by=iid", "partition.sites=1", "evaluation.leave-one-site-out=true"]
    assert (
        main(["run", str(file), "--out", str(tmp_path / "out"), "--set", *settings, "federation.quorum=1"])
        == 3
    )
    assert "FECG-110 evaluation.leave-one-site-out: found 1 virtual site(s)" in capsys.readouterr().err


def test_no_events_anywhere_is_a_message_and_no_summary(store: Path, tmp_path: Path, capsys: Any) -> None:
    text = CONFIG.replace("city = 90\ncoast = 60\n", "")
    file = configuration(tmp_path, store, text)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "summary.json").write_text("{}")
    assert main(["run", str(file), "--out", str(tmp_path / "out")]) == 1
    assert "FECG-512 training events: found 0" in capsys.readouterr().err
    assert not (tmp_path / "out" / "summary.json").exists()


def test_a_quorum_that_cannot_be_met_is_said_at_once(store: Path, tmp_path: Path, capsys: Any) -> None:
    file = configuration(tmp_path, store)
    assert main(["run", str(file), "--out", str(tmp_path / "out"), "--set", "federation.quorum=4"]) == 3
    assert "FECG-107 federation.quorum: found 4 with 3 virtual" in capsys.readouterr().err


def test_what_an_earlier_study_left_is_not_taken_for_a_failed_ones(
    finished: tuple[Path, dict[str, Any]], store: Path, tmp_path: Path, capsys: Any
) -> None:
    shutil.copytree(finished[0] / "out", tmp_path / "out")
    file = configuration(tmp_path, store, CONFIG.replace("city = 90\ncoast = 60\n", ""))
    assert main(["run", str(file), "--out", str(tmp_path / "out")]) == 1
    for name in ("summary.json", "report.html", "result.json", "rounds.json", "model/model.json"):
        assert not (tmp_path / "out" / name).exists()  # it failed before its first round


def test_bad_input_does_not_cost_a_finished_result(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "summary.json").write_text("{}")
    config = str(Path(__file__).resolve().parents[2] / "configs" / "ptbxl.toml")
    assert main(["run", config, "--data", str(tmp_path / "nope"), "--out", str(out)]) == 3
    assert (out / "summary.json").read_text() == "{}"


def test_two_runs_cannot_write_to_one_folder(store: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["run", str(configuration(tmp_path, store)), "--out", str(out)]) == 1
    assert "FECG-605 run folder: found another run" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["file", "file/below", "x" * 300])
def test_an_output_folder_that_cannot_be_made_is_said_without_its_path(
    name: str, store: Path, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(["run", str(configuration(tmp_path, store)), "--out", str(tmp_path / name)]) == 1
    message = capsys.readouterr().err
    assert "FECG-601 file or folder: found " in message
    assert str(tmp_path) not in message


def test_a_file_of_an_unfinished_run_is_an_error_with_a_code(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"FECG-602 result\.json: found no such file"):
        read_json(tmp_path / "result.json")


def test_ray_that_is_not_installed_is_said(
    monkeypatch: pytest.MonkeyPatch, store: Path, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    file = configuration(tmp_path, store)
    assert main(["run", str(file), "--out", str(tmp_path / "out"), "--set", "federation.backend=ray"]) == 1
    assert "FECG-603 backend: found ray is not installed" in capsys.readouterr().err


@pytest.mark.slow
def test_ray_gives_the_same_numbers(
    finished: tuple[Path, dict[str, Any]], store: Path, tmp_path: Path
) -> None:
    """In a process of its own, as a user would: Ray leaves a daemon and its own warnings behind."""
    command = [sys.executable, "-m", "fedecg_simulations.cli", "run", str(configuration(tmp_path, store))]
    overrides = ["federation.backend=ray", "evaluation.local-models=false"]
    subprocess.run([*command, "--out", str(tmp_path / "out"), "--set", *overrides], check=True, timeout=900)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    for key in ("federated-c-index", "rounds", "best-round", "sites", "status"):
        assert summary[key] == finished[1][key]
    assert summary["columns"]["pooled"] == finished[1]["columns"]["pooled"]  # another folder of sites
    for place in ("model", "columns/pooled/model"):
        one, other = ((folder / "out" / place / "weights.safetensors") for folder in (tmp_path, finished[0]))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_ray_without_room_for_a_site_is_refused_and_not_waited_for(store: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fedecg_simulations.cli", "run", str(configuration(tmp_path, store))]
    overrides = ["federation.backend=ray", "federation.ray-gpus=0.5", "federation.ray-cpus=200"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out"), "--set", *overrides],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 1
    assert "FECG-634 Ray: found" in done.stderr
    assert "expected one machine with 200 CPUs and 0.5 GPUs for a site at work" in done.stderr


def test_ctrl_c_in_a_round_leaves_nothing_that_looks_finished(store: Path, tmp_path: Path) -> None:
    file = configuration(tmp_path, store, CONFIG.replace("rounds = 2", "rounds = 5000"))
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "fedecg_simulations.cli", "run", str(file), "--out", str(out)],
        stderr=subprocess.PIPE,
        text=True,
        # A job in the background of a script ignores Ctrl-C, and its children inherit that: a terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and "survival" not in _text(out / "rounds.json"):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "FECG-604 run: found an interruption" in errors
    assert "Traceback" not in errors
    assert not (out / "summary.json").exists()
    assert not (out / "result.json").exists()
    assert not list(out.rglob("*.part"))


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def test_the_partition_command_prints_patients_events_and_labels(
    store: Path, tmp_path: Path, capsys: Any
) -> None:
    file = configuration(tmp_path, store)
    assert main(["partition", str(file), "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["outcomes"] == "simulated"
    assert [row["site"] for row in table["sites"]] == ["city", "coast", "rural"]
    assert all({"patients", "events", "label-mix"} <= set(row) for row in table["sites"])


def test_a_coordinator_has_the_same_summary_with_null_where_patients_must_lie_side_by_side(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    folder, summary = finished[0] / "out", finished[1] | {"seconds": None}
    files = ("result.json", "assessment.json", "explanation.json")
    result, assessment, explanation = (
        json.loads((folder / name).read_text()) if (folder / name).exists() else None for name in files
    )
    theirs = coordinator_summary(result, load_study(folder / "study.toml"), assessment, explanation, None)
    assert set(theirs) == set(summary)
    assert set(theirs["columns"]) == set(summary["columns"])
    ours = summary["columns"]["federated"]
    assert theirs["columns"]["federated"]["c-index-stratified"] == pytest.approx(ours["c-index-stratified"])
    assert theirs["columns"]["pooled"] is None
    for name in ("rounds", "best-round", "test", "assessment", "seed", "study", "settings-sha256"):
        if name != "test":
            assert theirs[name] == summary[name], name
    assert theirs["test"]["events"] == summary["test"]["events"]
