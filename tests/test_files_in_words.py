"""Errors of files in the words of whoever uses fedecg; only regular files are read."""

import errno
import json
import os
import re
import stat
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest

from fedecg.errors import RunError
from fedecg.files import NotRegularError, denied, in_words, read_regular, require_folder, write_whole

SECRET = "smith-1960"


def raised(what) -> Exception:
    try:
        what()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def test_every_kind_of_fault_has_plain_words_without_the_files_name(tmp_path: Path) -> None:
    absent = tmp_path / SECRET
    (tmp_path / "file").write_bytes(b"\xff")
    faults = {
        "no such file": lambda: read_regular(absent),
        "a folder": lambda: read_regular(tmp_path),
        "a path that leads through a file": lambda: read_regular(tmp_path / "file" / SECRET),
        "file name too long": lambda: read_regular(tmp_path / (SECRET * 100)),
        "text that is not JSON": lambda: json.loads(SECRET),
        "text that is not TOML": lambda: tomllib.loads(SECRET),
        "text that is not UTF-8": lambda: (tmp_path / "file").read_text(encoding="utf-8"),
        "content that cannot be read": lambda: int(SECRET),
    }
    assert {words: in_words(raised(fault)) for words, fault in faults.items()} == {
        words: words for words in faults
    }


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(errno.EACCES, "x", SECRET), "no permission"),
        (OSError(errno.ENOSPC, "x", SECRET), "no space left on device"),
        (OSError(), "an error of the operating system"),
        (NotRegularError(), "a pipe or device, not a file"),
    ],
)
def test_an_error_of_the_system_is_said_in_words(error: OSError, words: str) -> None:
    assert in_words(error) == words


def test_a_pipe_and_a_device_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name in (tmp_path / "pipe", tmp_path / "link", Path("/dev/null")):
        with pytest.raises(NotRegularError):
            read_regular(name)


def test_a_regular_file_is_read_whole_and_through_a_link(tmp_path: Path) -> None:
    content = os.urandom(300_000)
    (tmp_path / "file").write_bytes(content)
    (tmp_path / "link").symlink_to("file")
    assert read_regular(str(tmp_path / "link")) == content


def test_a_file_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="FECG-601 file x: found a path that leads through a file"):
        write_whole(tmp_path / "file" / "x", "")


def test_a_folder_that_nobody_may_write_to_is_refused_before_the_work_it_is_for(tmp_path: Path) -> None:
    """In a process of its own, which gives up the rights of root if it has them: root may write everywhere."""
    (tmp_path / "closed").mkdir(mode=0o555)
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from fedecg.errors import RunInputError\n"
        "from fedecg.files import require_folder\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "try: require_folder(Path(sys.argv[1]))\n"
        "except RunInputError as error: print(error)\n"
    )
    place = tmp_path / "closed" / "new" / "out"
    done = subprocess.run([sys.executable, "-c", script, place], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "FECG-601 folder to write: found no permission; expected a new one, or one that can be written. "
        "Choose another --out.\n"
    )
    require_folder(tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()


def told_to_nobody(folder: Path, act: str) -> str:
    """What a command ends with whose user is not root: in a process of its own, which gives up that right."""
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from fedecg.exits import exit_status\n"
        "from fedecg.files import write_whole\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "folder = Path(sys.argv[1])\n"
        f"sys.exit(exit_status(lambda: {act}))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert str(folder) not in done.stderr
    return done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_what_may_not_be_used_is_told_with_its_owner_and_who_asked() -> None:
    """No option that the command may not have, and no name: the path of a patient's file holds an id."""
    with tempfile.TemporaryDirectory() as made:  # below pytest's own folder nobody else may look
        folder = Path(made)
        folder.chmod(0o755)
        (folder / "4711.csv").touch(0o600)
        assert told_to_nobody(folder, "(folder / '4711.csv').read_bytes()") == (
            "FECG-601 file or folder: found no permission for a .csv file of root (mode 0600), as user nobody; "
            "expected one that this user may use, with space left. Run it as root, or give that .csv file to nobody "
            "(chown).\n"
        )
        folder_of_root = "found no permission for a folder of root (mode 0755), as user nobody; expected "
        mend = "Run it as root, or give that folder to nobody (chown).\n"
        told = told_to_nobody(folder, "(folder / 'new').mkdir()")
        assert (folder_of_root in told, told.endswith(mend)) == (True, True)
        told = told_to_nobody(folder, "write_whole(folder / 'sites.json', 'x')")
        assert told.startswith(f"FECG-601 file sites.json: {folder_of_root}")
        assert told.endswith(mend)


def test_an_owner_who_has_taken_the_permission_from_himself_is_told_to_give_it_back(tmp_path: Path) -> None:
    (tmp_path / "x").touch(0o400)
    found, fix = denied(PermissionError(), tmp_path / "x")
    assert re.fullmatch(r"no permission for a file of (\S+) \(mode 0400\), as user \1", found)
    assert fix.startswith("Change the permissions of that file (chmod u+rwX)")


@pytest.mark.parametrize(("durable", "synced"), [(True, ["file", "folder"]), (False, ["file"])])
def test_a_file_that_is_to_last_has_its_name_synced_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool, synced: list[str]
) -> None:
    """Order as the kernel is asked: the name must be the new file's when the folder is synced."""
    seen: list[str] = []
    sync = os.fsync

    def watch(descriptor: int) -> None:
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        assert (tmp_path / "x").exists() is folder
        seen.append("folder" if folder else "file")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    write_whole(tmp_path / "x", "content", durable=durable)
    assert seen == synced
    assert (tmp_path / "x").read_text() == "content"


def test_what_a_killed_process_of_the_same_number_left_is_no_hindrance(tmp_path: Path) -> None:
    left = tmp_path / f".x.{os.getpid()}.part"
    left.symlink_to(tmp_path / "elsewhere")
    write_whole(tmp_path / "x", "content", private=True)
    assert (tmp_path / "x").read_text() == "content"
    assert not left.is_symlink()
    assert not (tmp_path / "elsewhere").exists()
