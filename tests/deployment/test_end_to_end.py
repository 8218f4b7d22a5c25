"""A study from hospitals' folders to a model, with the real processes: the same bits as in one process."""

from __future__ import annotations

import csv
import os
import signal
import time
from dataclasses import fields
from pathlib import Path

import pytest
import tomli_w
from guide import PORTS, Terminal, blocks, free_ports, with_free_ports
from summaries import compare_summaries
from whole_study import (
    Deployment,
    Outcome,
    make_hospitals,
    nothing_left,
    read_object,
    run_in_one_process,
    tiny_study,
    wait_until,
)

from fedecg.config import load_study

ROOT = Path(__file__).resolve().parents[2]
SHORT = [
    "name=ptbxl-development", "signals.samples=256",
    "align.rounds=2", "align.local-steps=3", "survival.rounds=3", "survival.local-steps=3",
    "federation.quorum=3", "federation.threads=1", "evaluation.explain-seeds=0", "evaluation.baselines=true",
]  # fmt: skip
TABLE, TOO_SMALL = "ptbxl_database.csv", "2.0"  # 11 patients
SITES = ["site-0", "site-1", "site-3"]


def in_mid_round(deployment: Deployment, site: str) -> int:
    """Wait until a site trains in the survival stage; its worker."""

    def trains() -> bool:
        said = deployment.site_state(site, "progress.json")
        return said.get("phase") == "survival" and said.get("steps", 0) > 0

    def look() -> int:
        deployment.tend()
        return deployment.worker(site) if trains() else 0

    return int(wait_until(look, 120.0, deployment.describe))


@pytest.mark.timeout(280)
def test_two_hospitals_train_to_the_bits_of_one_process_although_a_worker_is_killed_in_mid_round(
    tmp_path: Path,
) -> None:
    hospitals = make_hospitals(tiny_study(), tmp_path / "hospitals")
    deployment = Deployment(hospitals, tmp_path / "deployment")
    began = time.monotonic()
    with nothing_left(deployment):
        deployment.start()
        worker = in_mid_round(deployment, "city")
        os.kill(worker, signal.SIGKILL)
        assert deployment.run_to_the_end(200.0) == 0
        events = (deployment.members["city"].folder / "state" / "events.jsonl").read_text()
        assert '"worker-died"' in events
        deployed = Outcome.of(deployment.run)
    print(f"deployed in {time.monotonic() - began:.1f} s")
    assert deployed.status == "completed"
    assert deployed == run_in_one_process(hospitals, tmp_path / "reference")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_three_sites_of_ptb_xl_come_by_the_guides_commands_alone_to_the_summary_of_one_process(
    data_root: Path, terminal: Terminal
) -> None:
    """init, site add, lock, accept, start: docs/deploy.md's first block. Beside it: `fedecg-simulate run`."""
    folder = terminal.folder
    without_site(data_root / "ptbxl", folder / "ptbxl", TOO_SMALL)
    settings = load_study(ROOT / "configs" / "ptbxl.toml", [*SHORT, f"data.path={folder / 'ptbxl'}"])
    study = tomli_w.dumps(settings.model_dump(by_alias=True, exclude_none=True))
    (folder / "configs" / "two-hospitals.toml").write_text(study)
    prepare, run, end = for_sites(SITES, settings.name)
    began = time.monotonic()
    terminal.run(prepare)
    terminal.run(run, timeout_s=900.0)
    print(f"deployed in {time.monotonic() - began:.1f} s")
    said = terminal.run(end)
    assert "summary.json" in said
    terminal.run("fedecg-simulate run configs/two-hospitals.toml --out simulated", timeout_s=900.0)
    deployed, simulated = (Outcome.of(folder / name) for name in ("coordinator/run", "simulated"))
    assert [site["name"] for site in deployed.evaluation["sites"]] == SITES
    assert deployed.status == "completed"
    for part in fields(Outcome):
        assert getattr(deployed, part.name) == getattr(simulated, part.name) != {}, part.name
    compare_summaries(
        *(read_object(folder / name / "summary.json") for name in ("coordinator/run", "simulated")),
        simulated.baselines,
    )


def without_site(source: Path, folder: Path, site: str) -> None:
    """PTB-XL as published, without the records of one site."""
    folder.mkdir()
    for entry in source.iterdir():
        if entry.name != TABLE:
            (folder / entry.name).symlink_to(entry)
    with (source / TABLE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (folder / TABLE).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row for row in rows if row["site"] != site)


def for_sites(sites: list[str], study: str) -> tuple[str, str, str]:
    """The guide's three blocks of "Ten minutes on one machine", for other sites and another study."""
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    start = "fedecg-client start sites/{site} & "
    prepare, run, end = (with_free_ports(block, ports) for block in blocks("Ten minutes on one machine"))
    assert prepare.count("for site in city coast;") == 2
    both = "".join(start.format(site=site) for site in ("city", "coast"))
    assert both.strip() in run
    stops = [f"fedecg-client stop sites/{site}" for site in ("city", "coast")]
    assert "\n".join(stops) in end
    prepare = prepare.replace("for site in city coast;", f"for site in {' '.join(sites)};")
    prepare = prepare.replace("--study two-hospitals", f"--study {study}")
    prepare = prepare.replace("$site two-hospitals $(", f"$site {study} $(")
    run = run.replace(both.strip(), "".join(start.format(site=site) for site in sites))
    run = run.replace("sites/city", f"sites/{sites[0]}")
    end = end.replace("\n".join(stops), "\n".join(f"fedecg-client stop sites/{site}" for site in sites))
    return prepare, run, end
