"""What all four commands have in common: help, version, and an end that people and programs can read."""

from __future__ import annotations

import argparse
import errno
import json
import os
import pwd
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from fedecg.codes import CODES
from fedecg.command_line import add_command, add_group, add_json, program, run
from fedecg.errors import PolicyError, RunError, SettingsError

Captured = pytest.CaptureFixture[str]
PROGRAMS = {
    "fedecg": "fedecg.cli",
    "fedecg-simulate": "fedecg_simulations.cli",
    "fedecg-server": "fedecg_server.cli",
    "fedecg-client": "fedecg_client.cli",
}


def command_of(act: Callable[[], int]) -> argparse.ArgumentParser:
    parser, commands = program("trial", "A trial.", "examples:\n  trial do --json")
    add_json(add_command(commands, "do", lambda _: act(), "do it", folder=True))
    add_command(add_group(commands, "site", "sites of it"), "list", lambda _: act(), "list them")
    return parser


def failing(error: BaseException) -> argparse.ArgumentParser:
    def act() -> int:
        raise error

    return command_of(act)


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_has_examples_a_version_and_help_without_a_command(name: str, capsys: Captured) -> None:
    main = import_module(PROGRAMS[name]).main
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: {name} ")
    assert f"\n  {name} " in shown  # an example to copy
    if name in ("fedecg-server", "fedecg-client"):
        assert "\nExit status: 0 done, 2 wrong use, 3 wrong " in shown
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"{name} ")


def test_a_group_alone_shows_its_help(capsys: Captured) -> None:
    assert run(command_of(lambda: 0), ["site"]) == 0
    assert "list them" in capsys.readouterr().out


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """A folder of another user than the one whom the test runs as, and that user's name."""
    owner, folder = pwd.getpwuid(os.getuid()).pw_name, tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 0 if os.getuid() else 12345)
    return folder, owner


def test_a_command_that_writes_into_the_folder_of_another_user_says_how_to_run_it_as_that_one(
    foreign: tuple[Path, str], capsys: Captured
) -> None:
    folder, owner = foreign
    assert run(command_of(lambda: 0), ["do", str(folder), "--json"], reading=("site list",)) == 0
    told = capsys.readouterr()
    become, own = ("runuser", "root") if os.getuid() else ("sudo", "12345")
    assert told.err == (
        f"note: this folder belongs to the user {owner}, and this command runs as {own}: what it writes, {owner} may "
        f"not be able to use. As {owner}: {become} -u {owner} -- trial do {folder} --json\n"
    )
    assert told.out == ""


def test_nothing_is_said_by_a_command_that_reads_or_to_the_owner_or_where_no_folder_is(
    foreign: tuple[Path, str], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = foreign
    assert run(command_of(lambda: 0), ["do", str(folder)], reading=("do",)) == 0
    assert run(command_of(lambda: 0), ["do", str(folder)]) == 0  # a program of no folder
    assert run(command_of(lambda: 0), ["site", "list"], reading=("site list",)) == 0
    assert run(command_of(lambda: 0), ["do", str(folder / "none")], reading=()) == 0
    monkeypatch.undo()
    assert run(command_of(lambda: 0), ["do", str(folder)], reading=()) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("program", "writes", "reads"),
    [
        ("fedecg-client", ["accept", "DIR", "hf", "ab" * 32], ["status", "DIR"]),
        ("fedecg-client", ["renew-key", "DIR"], ["key", "DIR", "--json"]),
        ("fedecg-server", ["renew", "DIR"], ["status", "DIR"]),
        (
            "fedecg-server",
            ["site", "remove", "city", "--yes", "--dir", "DIR"],
            ["site", "list", "--dir", "DIR"],
        ),
    ],
)
def test_site_and_coordinator_say_it_of_what_writes_alone(
    foreign: tuple[Path, str], capsys: Captured, program: str, writes: list[str], reads: list[str]
) -> None:
    main = import_module(PROGRAMS[program]).main
    for words, said in ((writes, True), (reads, False)):
        assert (
            main([str(foreign[0]) if word == "DIR" else word for word in words]) != 0
        )  # it is nobody's folder
        assert ("note: this folder belongs to" in capsys.readouterr().err) == said


@pytest.mark.parametrize("status", [0, 5])
def test_the_result_of_a_command_is_the_exit_status(status: int, capsys: Captured) -> None:
    assert run(command_of(lambda: status), ["do"]) == status
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("kind", "code", "status"),
    [(SettingsError, "FECG-103", 3), (PolicyError, "FECG-413", 4), (RunError, "FECG-649", 1)],
)
def test_with_json_an_error_is_a_document_and_the_status_stays(
    kind: type[RunError], code: str, status: int, capsys: Captured
) -> None:
    error = kind(code, "thing", found="this", expected="that", fix="Mend it.")
    assert run(failing(error), ["do", "--json"]) == status
    told = capsys.readouterr()
    message = f"{code} thing: found this; expected that. Mend it."
    assert json.loads(told.out) == {"code": code, "message": message, "fix": "Mend it."}
    assert told.err == message + "\n"
    assert run(failing(error), ["do"]) == status
    assert capsys.readouterr() == ("", message + "\n")


def test_an_interruption_and_a_fault_of_the_system_are_documents_too(capsys: Captured) -> None:
    assert run(failing(KeyboardInterrupt()), ["do", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["code"] == "FECG-604"
    assert run(failing(OSError(errno.EIO, "x")), ["do", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["fix"] == "Mend that, and run it again."


@pytest.mark.parametrize("shown", [False, True])
def test_a_fault_that_nobody_foresaw_is_its_place_and_no_value(
    shown: bool, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDECG_TRACEBACK", "1" if shown else "")

    def act() -> int:
        return int(json.loads("{}")["patient 4711"])

    line = act.__code__.co_firstlineno + 1
    assert run(command_of(act), ["do", "--json"]) == 1
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert document["code"] == "FECG-599"
    assert document["message"].startswith("FECG-599 run: found KeyError at ")
    assert "FEDECG_TRACEBACK=1 shows the traceback" in document["fix"]
    assert ("4711" in told.err, "Traceback" in told.err, f"line {line}" in told.err) == (shown,) * 3
    assert "4711" not in told.out


def test_the_place_of_a_fault_is_in_our_own_code(capsys: Captured) -> None:
    assert run(command_of(lambda: len(CODES.get("FECG-599", 0)) + SettingsError("x")), ["do"]) == 1
    assert " found TypeError at fedecg/command_line.py:" in capsys.readouterr().err


def test_a_full_disk_is_called_one(capsys: Captured) -> None:
    assert run(failing(OSError(errno.ENOSPC, "/a/secret/path")), ["do", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["message"] == (
        "FECG-601 file or folder: found no space left on device; expected one that this user may use, with space left."
        " The disk is full: make room on it, and run it again."
    )


@pytest.mark.parametrize(
    ("name", "words", "code"),
    [
        ("fedecg", ["verify", "/nowhere", "--json"], "FECG-306"),
        ("fedecg-simulate", ["run", "/nowhere.toml", "--json"], "FECG-101"),
        ("fedecg-server", ["status", "/nowhere", "--json"], "FECG-125"),
        ("fedecg-client", ["status", "/nowhere", "--json"], "FECG-123"),
    ],
)
def test_every_program_answers_a_machine_when_it_fails(
    name: str, words: list[str], code: str, capsys: Captured
) -> None:
    assert import_module(PROGRAMS[name]).main(words) == 3
    document = json.loads(capsys.readouterr().out)
    assert (document["code"], set(document)) == (code, {"code", "message", "fix"})


@pytest.mark.parametrize("words", [["do", "--nothing"], ["undo"], ["site", "paint"]])
def test_wrong_use_ends_with_2_before_anything_is_done(words: list[str], capsys: Captured) -> None:
    with pytest.raises(SystemExit) as end:
        run(command_of(lambda: pytest.fail("it was done")), words)
    assert end.value.code == 2
    assert "usage: trial" in capsys.readouterr().err
