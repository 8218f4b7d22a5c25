"""The house rules that a machine can check: imports go one way, codes are listed, nothing is pickled."""

import ast
import re
from pathlib import Path

import pytest

from fedecg.codes import CODES

ROOT = Path(__file__).resolve().parent.parent
ROOMS = [
    "codes", "errors", "files", "config", "fingerprint", "progress", "exits", "command_line", "memory",
    "locks", "intended_use",
    "signals", "cohort", "text", "model", "objectives", "evaluation", "privacy", "training",
    "representation", "federation", "prediction", "explanation", "report",
    "cli",
]  # fmt: skip
SOURCES = sorted(
    file for folder in ("fedecg", "server", "client", "simulations") for file in (ROOT / folder).rglob("*.py")
)


def imported_modules(file: Path) -> set[str]:
    """Every module name that a file imports, at any depth of the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def room_of(file: Path) -> str:
    return file.relative_to(ROOT / "fedecg").parts[0].removesuffix(".py")


@pytest.mark.parametrize(
    "file", [f for f in SOURCES if f.is_relative_to(ROOT / "fedecg")], ids=lambda f: f.stem
)
def test_a_room_imports_only_from_earlier_rooms(file: Path) -> None:
    if file.parent == ROOT / "fedecg" and file.stem == "__init__":
        return
    own = ROOMS.index(room_of(file))
    for module in imported_modules(file):
        assert not re.match(r"fedecg_(server|client|simulations)\b", module), f"{file.name} imports {module}"
        if module.startswith("fedecg."):
            assert ROOMS.index(module.split(".")[1]) <= own, f"{file.name} imports the later room {module}"


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: f.stem)
def test_only_the_flower_side_imports_flower(file: Path) -> None:
    flower = {module for module in imported_modules(file) if module.split(".")[0] == "flwr"}
    if file.is_relative_to(ROOT / "fedecg") and file != ROOT / "fedecg/federation/messages.py":
        assert not flower, f"{file.name} imports {flower}"


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: f.stem)
def test_nothing_is_pickled(file: Path) -> None:
    assert not imported_modules(file) & {"pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}


def test_error_codes_raised_are_those_that_are_listed() -> None:
    raised: set[str] = set()
    for file in SOURCES:
        if file != ROOT / "fedecg/codes.py":
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    raised |= {node.value} if re.fullmatch(r"FECG-\d{3}", node.value) else set()
    assert raised == set(CODES), (
        f"not listed: {sorted(raised - set(CODES))}; never raised: {sorted(set(CODES) - raised)}"
    )


def test_only_messages_knows_record_keys() -> None:
    for file in SOURCES:
        if file != ROOT / "fedecg/federation/messages.py":
            assert not re.search(r"\b(array|config|metric)_records\b", file.read_text()), file.name
