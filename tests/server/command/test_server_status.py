"""`fedecg-server status`, `renew`, and what `start` says before anything runs."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from server_words import PYTHON, Captured

from fedecg.errors import RunError
from fedecg_server.certificates import check_tls
from fedecg_server.cli import main
from fedecg_server.coordinator import open_coordinator


def test_start_says_at_once_what_is_wrong(
    folder: Path, public_key: Callable[[str], str], capsys: Captured
) -> None:
    assert main(["start", str(folder)]) == 3
    assert (
        "FECG-107 sites.json: found 0 site(s); expected at least the quorum of 1" in capsys.readouterr().err
    )
    main(["site", "add", "city", "--key", public_key("city"), "--dir", str(folder)])
    listed = (folder / "sites.json").read_text()
    (folder / "sites.json").write_text("{")
    assert main(["start", str(folder)]) == 3
    assert "FECG-672 sites.json: found " in capsys.readouterr().err
    (folder / "sites.json").write_text(listed)
    (folder / "study.toml").write_text("nme = 1\n")
    assert main(["start", str(folder)]) == 3
    assert "nme: unknown key" in capsys.readouterr().err
    (folder / "tls/server.crt").unlink()
    assert main(["start", str(folder)]) == 1
    assert "FECG-673 tls/server.crt: found no such file" in capsys.readouterr().err
    assert list((folder / "run").iterdir()) == []


def write_status(folder: Path, **changes: object) -> None:
    """A status document as the study writes it."""
    site = {"name": "city", "state": "answered", "last-round": 3, "code": None, "seconds": 41.2}
    document = {
        "study": "study", "run": "ab" * 8, "lock": "cd" * 32, "state": "waiting", "code": None, "phase": "survival",
        "round": 4, "rounds": 10, "waiting-for": ["coast"], "waited-s": 41.0, "at-most-s": 300.0,
        "sites": [site, {**site, "name": "coast", "state": "working", "last-round": 2}],
        "c-index": {"stratified": 0.71, "global": 0.7, "lower": 0.68, "upper": 0.73, "ci-low": 0.66, "ci-high": 0.76,
                    "events": 120, "few-events": False},
        "bytes": 1000, "updated": "2026-11-21T08:00:00Z", "started": "2026-11-21T07:00:00Z", "eta-s": 600.0,
    }  # fmt: skip
    (folder / "run/status.json").write_text(json.dumps(document | changes))


def test_status_of_a_new_folder(folder: Path, public_key: Callable[[str], str], capsys: Captured) -> None:
    main(["site", "add", "city", "--key", public_key("city"), "--dir", str(folder)])
    capsys.readouterr()
    assert main(["status", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["state"], document["running"], document["waiting-for"]) == ("not-started", False, [])
    assert document["round"] is document["c-index"] is None
    assert [(site["name"], site["state"], site["last-round"]) for site in document["sites"]] == [
        ("city", "not-seen", None)
    ]
    assert document["certificate"]["days-left"] in (823, 824)
    assert document["certificate"]["warnings"] == []
    assert main(["status", str(folder)]) == 0
    words = capsys.readouterr().out
    assert "not-started. Next: fedecg-server lock, then fedecg-server start" in words
    assert document["certificate"]["fingerprint"] in words


def test_status_names_whom_a_running_study_waits_for(
    folder: Path, public_key: Callable[[str], str], capsys: Captured
) -> None:
    main(["site", "add", "city", "--key", public_key("city"), "--dir", str(folder)])
    main(["site", "add", "valley", "--key", public_key("valley"), "--dir", str(folder)])
    write_status(folder)
    capsys.readouterr()
    holder = subprocess.Popen(
        [*PYTHON, "import sys; from fedecg_server.coordinator import open_coordinator\n"
         "from fedecg_server.server_lock import only_one\n"
         "with only_one(open_coordinator(sys.argv[1])): print('held', flush=True); sys.stdin.read()", str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert main(["status", str(folder), "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert main(["status", str(folder)]) == 0
        words = capsys.readouterr().out
    finally:
        holder.kill()
        holder.communicate()
    assert (document["state"], document["running"], document["round"]) == ("waiting", True, 4)
    states = {site["name"]: (site["state"], site["last-round"], site["listed"]) for site in document["sites"]}
    assert states == {
        "city": ("answered", 3, True),
        "valley": ("not-seen", None, True),
        "coast": ("working", 2, False),
    }
    assert "waiting, phase survival, round 4 of 10, about 10 min left" in words
    assert "coast: 41 s of at most 300 s" in words
    assert (
        "0.710 within sites; over all 0.700 (95 % CI 0.660-0.760), guaranteed 0.680-0.730; 120 events"
        in words
    )
    assert main(["status", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    # It was killed: the file still says that it waits, and that a site works.
    assert (document["state"], document["waiting-for"], document["at-most-s"]) == ("stopped", [], 0.0)
    states = {site["name"]: (site["state"], site["last-round"]) for site in document["sites"]}
    assert states == {"city": ("answered", 3), "valley": ("not-seen", None), "coast": ("offline", 2)}
    assert main(["status", str(folder)]) == 0
    words = capsys.readouterr().out
    assert "waiting" not in words
    assert "working" not in words


def test_a_node_whose_key_was_removed_is_no_site(
    folder: Path, public_key: Callable[[str], str], capsys: Captured
) -> None:
    main(["site", "add", "city", "--key", public_key("city"), "--dir", str(folder)])
    node = {"name": "node 7228584742653926615", "state": "refused", "code": "FECG-508"}
    write_status(folder, sites=[{"name": "city", "state": "answered"}, node])
    capsys.readouterr()
    assert main(["status", str(folder), "--json"]) == 0
    assert [site["name"] for site in json.loads(capsys.readouterr().out)["sites"]] == ["city"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_a_status_file_that_may_not_be_read_is_not_to_be_removed() -> None:
    """In a process of its own, which is not root."""
    script = (
        "import os, sys; from pathlib import Path; from fedecg_server.run_view import Status, read_document\n"
        "os.setuid(65534)\n"
        "try: read_document(Status, Path(sys.argv[1]))\n"
        "except Exception as error: print(error)\n"
    )
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        (Path(made) / "status.json").touch(0o600)
        told = subprocess.run(
            [*PYTHON, script, f"{made}/status.json"], capture_output=True, text=True, check=True
        )
    assert told.stdout == (
        "FECG-602 run/status.json: found no permission for a .json file of root (mode 0600), as user nobody; expected "
        "a file that this user may read. Run it as root, or give that .json file to nobody (chown).\n"
    )


@pytest.mark.parametrize(
    ("withheld", "words"),
    [
        (
            {"coast": ["concordance", "life"]},
            "none: withheld by coast (below their thresholds of 10 patients or 5",
        ),
        ({}, "none: no two patients of the test part whose order in time is known"),
    ],
)
def test_status_of_a_finished_study_without_a_c_index_says_why_and_not_that_it_will_come(
    folder: Path, capsys: Captured, withheld: dict[str, list[str]], words: str
) -> None:
    write_status(folder, state="completed", **{"c-index": {"stratified": None, "events": None}})
    unknown = {
        "evaluation": {"validation": {"stratified": 0.7}, "test": {"stratified": None, "events": None}}
    }
    (folder / "run/result.json").write_text(json.dumps(unknown))
    (folder / "run/assessment.json").write_text(json.dumps({"withheld": withheld}))
    assert main(["status", str(folder)]) == 0
    said = capsys.readouterr().out
    assert f"C-index  {words}" in said
    assert "yet" not in said
    assert main(["status", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["result"].startswith(words)


@pytest.mark.parametrize(
    ("file", "content", "state", "words"),
    [
        ("result.json", "{}", "completed-partial", "without some sites. Next: fedecg-server report"),
        (
            "failed.json",
            '{"code": "FECG-507", "message": "FECG-507 round: found 1."}',
            "failed",
            "failed, phase survival, round 4 of 10: FECG-507 round: found 1. Once its cause is mended",
        ),
    ],
)
def test_status_after_the_end(
    folder: Path, capsys: Captured, file: str, content: str, state: str, words: str
) -> None:
    write_status(folder, state="completed-partial" if file == "result.json" else "running")
    (folder / "run" / file).write_text(content)
    assert main(["status", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["state"] == state
    assert document["code"] == ("FECG-507" if state == "failed" else None)
    assert main(["status", str(folder)]) == 0
    assert words in capsys.readouterr().out


@pytest.mark.parametrize("file", ["status.json", "failed.json"])
@pytest.mark.parametrize("content", ["", "[1]", "{", '{"sites": [1], "code": 3}', "[" * 100_000])
def test_a_damaged_status_file_is_told(folder: Path, capsys: Captured, file: str, content: str) -> None:
    (folder / "run" / file).write_text(content)
    assert main(["status", str(folder)]) == 3
    told = capsys.readouterr().err
    assert f"FECG-602 run/{file}: found content that cannot be read; expected the file as the study" in told
    assert "Remove it: " in told


def test_renewing_takes_the_name_of_server_toml_and_tells_of_open_keys(
    folder: Path, capsys: Captured
) -> None:
    ca = (folder / "tls/ca.crt").read_bytes()
    text = (folder / "server.toml").read_text()
    (folder / "server.toml").write_text(text.replace("ecg.example.org", "new.example.org"))
    (folder / "tls/ca.key").chmod(0o644)
    with pytest.raises(RunError, match="another name than that in server.toml"):
        check_tls(open_coordinator(folder).tls, "new.example.org")
    assert main(["renew", str(folder)]) == 0
    told = capsys.readouterr()
    assert "new certificate for new.example.org, 127.0.0.1, localhost, until " in told.out
    assert "sites change nothing" in told.out
    assert "warning: tls/ca.key can be read by others: chmod 600 tls/ca.key" in told.err
    check_tls(open_coordinator(folder).tls, "new.example.org")
    assert (folder / "tls/ca.crt").read_bytes() == ca
