"""What `fedecg-simulate` answers without loading torch, which takes seconds: help, lists, what is wrong with a file."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = "{'torch', 'flwr', 'pandas', 'matplotlib'}"
DEMO = Path(__file__).parents[2] / "configs" / "demo.toml"
MISSPELT = """
name = "misspelt"
base = "{base}"
seeds = [0]
[axes.algorithm]
fedavg = {{ "federation.algoritm" = "fedavg" }}
"""


def answer(words: list[str]) -> subprocess.CompletedProcess[str]:
    """Of the command, whose process fails where something heavy was loaded."""
    script = (
        "import sys\n"
        "from fedecg_simulations.cli import main\n"
        "status = main(sys.argv[1:])\n"
        f"heavy = {HEAVY} & set(sys.modules)\n"
        "sys.exit(f'loaded: {sorted(heavy)}' if heavy else status)\n"
    )
    return subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=False)


def test_what_public_sets_there_are_is_told_without_torch() -> None:
    told = answer(["data", "list"])
    assert (told.returncode, told.stderr) == (0, "")
    assert "cinc2021" in told.stdout


@pytest.mark.parametrize("command", [["run"], ["partition"], ["hospitals", "--out", "nowhere"]])
def test_settings_that_cannot_be_are_refused_without_torch(command: list[str]) -> None:
    told = answer([*command, str(DEMO), "--set", "federation.fraction=2"])
    assert told.returncode == 3, told.stderr
    assert "FECG-103" in told.stderr
    assert "federation.fraction" in told.stderr


def test_a_misspelt_key_of_a_grid_is_refused_without_torch(tmp_path: Path) -> None:
    grid = tmp_path / "misspelt.toml"
    grid.write_text(MISSPELT.format(base=DEMO))
    told = answer(["grid", str(grid), "--out", str(tmp_path / "out")])
    assert told.returncode == 3, told.stderr
    assert "FECG-113" in told.stderr
    assert "algoritm" in told.stderr
    assert not (tmp_path / "out").exists()
