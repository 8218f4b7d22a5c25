"""A study of many rounds leaves its processes as they were, a killed site is soon back, big models fit the server.

Agents alone, with rounds of no work: test_agent_endurance. An idle agent that was killed: test_agent.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest
from whole_study import Deployment, make_hospitals, nothing_left, tiny_study, wait_until

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

from server_memory import measured  # the path stands above

pytestmark = pytest.mark.slow

ROUNDS, WARM, MEASURED = 50, 13, 43
MOST_GROWTH_KB = 16_000  # of any process over 30 rounds: allocators keep what they have had once
MOST_DATABASE_GROWTH = 4_000_000
SITES, MODEL_MB = 10, 40.0
MOST_LIGHT_MB = 420.0  # of the app host with models of 2 MB; measured: 379


def use(pid: int) -> tuple[int, int, int]:
    """Resident kB, open files, threads."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return (
        int(fields["VmRSS"].split()[0]),
        len(list(Path(f"/proc/{pid}/fd").iterdir())),
        int(fields["Threads"]),
    )


def least_use(pids: dict[str, int]) -> dict[str, tuple[int, int, int]]:
    """Of each process, over a second: a round's own replies lie in open files until they are added up."""
    looks = []
    for _ in range(10):
        looks.append({name: use(pid) for name, pid in pids.items()})
        time.sleep(0.1)
    return {
        name: tuple(min(look[name][kind] for look in looks) for kind in range(3))  # type: ignore[misc]
        for name in pids
    }


def files(deployment: Deployment) -> list[str]:
    """Every file of the coordinator and of the sites' states, by name; what lives for a moment is not counted."""
    folders = [
        deployment.coordinator.folder,
        *(site.folder / "state" for site in deployment.members.values()),
    ]
    found = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    passing = (".part", "in-hand.json", "progress.json")
    return sorted(
        str(path.parent if path.parent.name == "replies" else path)
        for path in found
        if not path.name.endswith(passing)
    )


def pids_of(deployment: Deployment) -> dict[str, int]:
    """Every process of the deployment by what it is."""
    sites = {f"agent of {name}": site.pid for name, site in deployment.sites.items()}
    workers = {f"worker of {name}": deployment.worker(name) for name in deployment.sites}
    return {"supervisor": deployment.server.pid, **deployment.children(), **sites, **workers}


@pytest.mark.timeout(1800)
def test_fifty_rounds_leave_everything_as_it_was_and_a_killed_site_is_back_within_15_s(
    tmp_path: Path,
) -> None:
    settings = tiny_study("endurance", quorum=3)
    survival = settings.survival.model_copy(update={"rounds": ROUNDS, "local_steps": 1})
    data = settings.data.model_copy(update={"sites": {"city": 60, "coast": 50, "valley": 40}})
    settings = settings.model_copy(update={"survival": survival, "data": data})
    deployment = Deployment(make_hospitals(settings, tmp_path / "hospitals"), tmp_path / "deployment")

    def after(number: int) -> None:
        def reached() -> bool:
            deployment.tend()
            return len(deployment.rounds()) >= number + settings.align.rounds

        wait_until(reached, 600.0, deployment.describe)

    with nothing_left(deployment):
        deployment.start()
        after(WARM)
        pids = pids_of(deployment)
        before, there = least_use(pids), files(deployment)
        database = sum(path.stat().st_size for path in deployment.coordinator.superlink.glob("database*"))
        began = time.monotonic()
        after(MEASURED)
        seconds = (time.monotonic() - began) / (MEASURED - WARM)
        now, still = least_use(pids), files(deployment)
        database = (
            sum(path.stat().st_size for path in deployment.coordinator.superlink.glob("database*")) - database
        )
        assert pids_of(deployment) == pids
        back = seconds_until_back(deployment, "city")
        assert deployment.run_to_the_end(600.0) == 0
    growth = {name: [new - old for new, old in zip(now[name], before[name], strict=True)] for name in pids}
    print(f"{seconds:.2f} s a round; growth (kB, files, threads) {growth}; of the database {database} bytes")
    print(f"at the end {now}; a killed site is back after {back:.1f} s")
    for name, (memory_kb, open_files, threads) in growth.items():
        assert memory_kb < MOST_GROWTH_KB, name
        assert open_files <= 2, name  # a connection more or less
        assert threads <= 2, name
    assert set(still) - set(there) == set()
    assert database < MOST_DATABASE_GROWTH
    assert back < 15.0


def seconds_until_back(deployment: Deployment, site: str) -> float:
    """From kill -9 of a site's agent, in mid-study, until it is connected again; the keeper's second is in it."""
    service, killed = deployment.sites[site], deployment.sites[site].pid
    service.kill()
    began = time.monotonic()

    def back() -> bool:
        deployment.tend()
        status = deployment.site_state(site, "status.json")
        return status.get("pid") not in (None, killed) and bool(status.get("connected"))

    wait_until(back, 120.0, deployment.describe)
    return time.monotonic() - began


# --- big models ----------------------------------------------------------------------------------------------------

# Rounds of sites that train nothing, all of them uploading at once: benchmarks/server_memory.py.


def host_mb(line: dict[str, Any], sites: int) -> float:
    """The most memory of the app host; every round was answered by all."""
    print(line)
    assert line["answered"] == [sites]
    assert set(line["peak-mb"]) == {"app-host", "superlink", "supervisor"}
    return float(line["peak-mb"]["app-host"])


@pytest.mark.timeout(1800)
def test_ten_sites_of_40_mb_fit_into_three_models_and_500_mb(tmp_path: Path) -> None:
    line = measured(tmp_path / "heavy", "paper", SITES, rounds=2)
    assert line["model-mb"] == pytest.approx(MODEL_MB, rel=0.1)
    assert host_mb(line, SITES) < line["most-mb"]


@pytest.mark.timeout(900)
def test_small_models_take_little_more_than_the_programs_themselves(tmp_path: Path) -> None:
    assert host_mb(measured(tmp_path / "light", "small", 4, rounds=1), 4) < MOST_LIGHT_MB
