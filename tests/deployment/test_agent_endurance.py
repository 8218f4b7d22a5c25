"""How quick a round of no work is with three agents, and that 50 of them leave the processes as they were."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from loopback import AgentProcess, Driver

pytestmark = pytest.mark.slow

MakeSite = Callable[..., AgentProcess]
ROUNDS, WARM = 50, 10
MOST_GROWTH_KB = 4_000


def use(pid: int) -> tuple[int, int, int]:
    """Resident kB, open files, threads."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return (
        int(fields["VmRSS"].split()[0]),
        len(list(Path(f"/proc/{pid}/fd").iterdir())),
        int(fields["Threads"]),
    )


def test_fifty_rounds_of_three_agents_are_quick_and_nothing_grows(
    make_site: MakeSite, driver: Driver
) -> None:
    agents = [make_site(name).start() for name in ("east", "north", "west")]
    nodes = [agent.online(60) for agent in agents]
    pids = [pid for agent in agents for pid in (agent.process.pid, agent.status["worker-pid"])]  # type: ignore[union-attr]
    seconds, before = [], {}
    for number in range(ROUNDS):
        if number == WARM:
            before = {pid: use(pid) for pid in pids}
            files = [sorted(path.name for path in (agent.folder / "state").iterdir()) for agent in agents]
        began = time.monotonic()
        replies = driver.ask(*nodes)
        seconds.append(time.monotonic() - began)
        assert [reply["error"] for reply in replies] == [None] * 3
    time.sleep(6)  # the last status
    after = {pid: use(pid) for pid in pids}
    growth = {pid: [now - then for now, then in zip(after[pid], before[pid], strict=True)] for pid in pids}
    print(
        f"round: median {statistics.median(seconds):.2f} s, most {max(seconds):.2f} s; growth {growth}; {after}"
    )
    assert statistics.median(seconds) <= 1.0
    for pid in pids:
        assert growth[pid][0] < MOST_GROWTH_KB
        assert growth[pid][1] <= 0
        assert growth[pid][2] <= 0
    assert files == [sorted(path.name for path in (agent.folder / "state").iterdir()) for agent in agents]
    assert [agent.status["tasks-done"] for agent in agents] == [ROUNDS] * 3
    assert [agent.status["worker-pid"] for agent in agents] == pids[1::2]
