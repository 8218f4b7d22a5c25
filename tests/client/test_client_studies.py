"""`fedecg-client studies` and `accept`: what the site has agreed to, and what waits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from asking import lock_of, study
from client_words import Captured

from fedecg_client.cli import main
from fedecg_client.pinned import pin, pinned_lock, propose
from fedecg_client.preflight.check import failed
from fedecg_client.preflight.report import lines, printable


def test_studies_and_accept_show_and_change_what_was_agreed_to(
    site: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["studies", str(site)]) == 0
    assert "no study has been joined yet" in capsys.readouterr().out
    first, second = lock_of(study()), lock_of(study(seed=7))
    pin(site, first)
    propose(site, second)
    assert main(["studies", str(site), "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["studies"]
    assert (entry["study"], entry["sha256"], entry["proposed"]) == ("hf", first.sha256(), second.sha256())
    assert entry["summary"] == first.summary()
    assert main(["studies", str(site)]) == 0
    told = capsys.readouterr().out
    assert "Leaves the site: weights" in told
    assert f"fedecg-client accept hf {second.sha256()}" in told
    assert main(["accept", str(site), "hf", "0" * 64]) == 4
    assert "FECG-413" in capsys.readouterr().err
    monkeypatch.chdir(site)
    assert (
        main(["accept", "hf", second.sha256().upper()]) == 0
    )  # as the refusal's own words say, in the folder
    told = capsys.readouterr().out
    assert second.sha256() in told
    assert told.endswith(
        f"It takes the place of the lock {first.sha256()}: a run of that one gets no more work done here\n"
        f"(FECG-416). To go back: fedecg-client accept hf {first.sha256()}\n"
    )
    assert pinned_lock(site, "hf") == second
    (site / "state/locks/hf.json").write_text("{")
    assert main(["studies", str(site)]) == 0
    assert "hf: a damaged lock" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["../../../etc/passwd", "hf/../hf", "", ".", "HF", "a" * 65, "hf\n"])
def test_the_name_of_a_study_never_becomes_a_path(site: Path, capsys: Captured, name: str) -> None:
    assert main(["accept", str(site), name, "0" * 64]) == 3
    assert "FECG-124 name of the study" in capsys.readouterr().err


def test_a_study_that_waits_for_consent_is_shown_in_plain_words_and_in_the_status(
    site: Path, capsys: Captured
) -> None:
    lock = lock_of(study())
    propose(site, lock)
    assert main(["studies", str(site)]) == 0
    told = capsys.readouterr().out
    assert "WAITS for this site's consent, and does nothing here until you agree:" in told
    assert "Leaves the site: weights" in told
    assert f"To agree: fedecg-client accept hf {lock.sha256()}" in told
    assert main(["status", str(site)]) == 0
    assert "study    hf waits for this site's consent. See: fedecg-client studies" in capsys.readouterr().out
    assert main(["status", str(site), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["waits"] == ["hf"]
    assert main(["accept", str(site), "hf", lock.sha256()]) == 0
    assert "agreed: the site takes part from the coordinator's next message on" in capsys.readouterr().out
    assert pinned_lock(site, "hf") == lock
    assert main(["status", str(site), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["waits"] == []


def test_consent_in_advance_is_shown_until_the_study_has_come(site: Path, capsys: Captured) -> None:
    sha256 = "ab" * 32
    assert main(["accept", str(site), "hf", sha256.upper()]) == 0
    told = f"agreed to study hf with the lock {sha256}, which has not come yet; with any other it waits\n"
    assert capsys.readouterr().out == told
    assert main(["studies", str(site)]) == 0
    assert f"hf: agreed to the lock {sha256}, which has not come yet" in capsys.readouterr().out
    assert main(["studies", str(site), "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["studies"]
    assert (entry["study"], entry["sha256"], entry["agreed"]) == ("hf", None, sha256)


def test_consent_to_a_study_that_the_policy_does_not_name_says_which_line_to_write(
    site: Path, capsys: Captured
) -> None:
    assert main(["accept", str(site), "third", "ab" * 32]) == 0
    assert capsys.readouterr().out.endswith(
        "The policy does not allow this study yet. In [policy] of site.toml write: "
        'studies = ["hf", "other", "third"]\n'
    )
    assert main(["accept", str(site), "other", "ab" * 32]) == 0
    assert "policy" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["accept", "SITE", "ab" * 32], "STUDY"),
        (["approve", "SITE"], "STUDY"),
        (["withdraw", "SITE"], "PATIENTS-FILE"),
    ],
)
def test_a_folder_alone_is_not_taken_for_what_is_missing(
    site: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, words: list[str], missing: str
) -> None:
    monkeypatch.chdir(site.parent)
    with pytest.raises(SystemExit) as end:
        main([site.name if word == "SITE" else word for word in words])
    assert end.value.code == 2
    assert f"error: {missing} is missing: {site.name} is a site's folder" in capsys.readouterr().err


@pytest.mark.parametrize("sha256", ["", "0" * 63, "g" * 64, "0" * 65, "0" * 64 + "\n"])
def test_a_hash_that_is_none_is_told(site: Path, capsys: Captured, sha256: str) -> None:
    assert main(["accept", str(site), "hf", sha256]) == 3
    assert "FECG-124 hash of the study's lock: found no sha256; expected 64 digits" in capsys.readouterr().err
    assert not (site / "state/locks").exists()


def test_a_message_of_several_lines_stays_readable_and_cannot_pass_for_another_check() -> None:
    checks = [
        failed(
            "settings", "settings", "FECG-103", "2 problem(s)\n  a: wrong\nok    key  fine\n", "Mend\nboth."
        )
    ]
    assert lines(checks) == [
        "MEND  settings  FECG-103 2 problem(s)",
        "                a: wrong",
        "                ok    key  fine",
        "                -> Mend",
        "                both.",
    ]
    assert printable("one\ntwo\x1b[2J") == "one two?[2J"
