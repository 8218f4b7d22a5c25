"""A study with differential privacy at a site: no budget, no room, an older ledger; through the real ClientApp."""

import json
import shutil
from pathlib import Path

import pytest
from asking import NOTHING_IS_SMALL, answer, join, lock_of, said, study, task_of, train, write_site

from fedecg.config import load_site
from fedecg.errors import PolicyError, SettingsError
from fedecg.federation.documents import LedgerHead
from fedecg.federation.messages import pack
from fedecg.federation.tasks import JoinReply, JoinTask
from fedecg.privacy.accountant import Plan, Spend, epsilon_of, planned_noise
from fedecg.privacy.ledger import Purpose, open_ledger
from fedecg_client.budget import noise_here, spend_here
from fedecg_client.cli import main
from fedecg_client.folder import open_site
from fedecg_client.pinned import propose
from fedecg_client.preflight import quick_checks

SECTIONS = {
    "align": {"rounds": 2, "local-steps": 5},
    "survival": {"rounds": 2, "local-steps": 5},
    "privacy": {"mode": "sample", "sums": "noised"},
}
PRIVATE = study(**SECTIONS)
LOCK = lock_of(PRIVATE)
BUDGET = f"{NOTHING_IS_SMALL}epsilon = 4.0\ndelta = 1e-5\n"
RUN = "00c0ffee"
OTHER = Purpose("other", "1", "survival", 1)


def failed(text: str) -> str:
    document = json.loads(text)
    assert document.keys() == {"site", "failed"}
    return document["failed"]


def spend(folder: Path, *spends: Spend, purpose: Purpose = OTHER) -> LedgerHead:
    return LedgerHead.of(spend_here(folder, load_site(folder / "site.toml"), purpose, spends))


def test_a_site_without_a_budget_takes_part_in_no_study_with_differential_privacy(tmp_path, caplog):
    folder = write_site(tmp_path)
    assert failed(join(folder, LOCK)) == "FECG-438"
    assert failed(said(train(folder, task_of(LOCK)))) in {"FECG-416", "FECG-438"}
    assert (
        'FECG-438 privacy budget of the site: found none, and a study with privacy.mode = "sample"; expected epsilon'
        " and delta in [privacy] of site.toml. Write what the site's patients may be known by, over all studies:"
        " epsilon = 8.0, delta = 1e-5; delta well below 1 in the number of patients."
    ) in caplog.text
    assert not (folder / "ledger.sqlite").exists()
    JoinReply.model_validate_json(join(folder, lock_of(study())))  # others go on


@pytest.mark.parametrize("delta", ["0.5", "1.1e-3", "0.0", "nan"])
def test_a_delta_that_lets_many_patients_be_told_whole_is_refused(tmp_path, delta):
    folder = write_site(tmp_path, privacy=BUDGET.replace("1e-5", delta))
    with pytest.raises(SettingsError, match="privacy.delta: expected"):
        load_site(folder / "site.toml")


def test_a_study_that_fits_is_joined_and_has_the_noise_of_its_plan(tmp_path):
    folder = write_site(tmp_path, privacy=BUDGET)
    JoinReply.model_validate_json(join(folder, LOCK))
    noise = noise_here(folder, load_site(folder / "site.toml"), PRIVATE, RUN)
    assert noise == planned_noise(Plan.of(PRIVATE), 4.0, 1e-5)
    assert (folder / "ledger.key").stat().st_mode & 0o077 == 0


def test_a_table_of_which_the_ledger_knows_nobody_is_told_of_at_the_site(tmp_path, caplog):
    """The same patients under other names would be taken for new ones."""
    folder = write_site(tmp_path, privacy=BUDGET)
    spend(folder, Spend("hazard", "train", 90.0))
    JoinReply.model_validate_json(join(folder, LOCK))
    assert "is among the" not in caplog.text
    table = (folder / "cohort.csv").read_text().splitlines()
    header = table[0].split(",")
    rows = [dict(zip(header, line.split(",", len(header) - 1), strict=True)) for line in table[1:]]
    renamed = [",".join((row | {"patient": "x" + row["patient"]}).values()) for row in rows]
    (folder / "cohort.csv").write_text("\n".join([table[0], *renamed]) + "\n")
    JoinReply.model_validate_json(join(folder, LOCK))
    found = len({row["patient"] for row in rows})
    assert f"none of the {found} patients of the table is among the" in caplog.text


def test_a_study_that_does_not_fit_beside_an_earlier_one_is_not_joined_and_goes_on_in_its_own_run(
    tmp_path, caplog
):
    folder = write_site(tmp_path, privacy=BUDGET)
    spends = Plan.of(PRIVATE).spends(planned_noise(Plan.of(PRIVATE), 4.0, 1e-5))
    spend(folder, *spends, purpose=Purpose("hf", RUN, "survival", 1))
    assert failed(join(folder, LOCK)) == "FECG-437"
    assert (
        "FECG-437 privacy budget for study hf: found an epsilon of 4.000 spent on these patients before"
        in caplog.text
    )
    own = said(answer(folder, pack(JoinTask(lock=LOCK, run=RUN))))
    JoinReply.model_validate_json(own)
    with pytest.raises(PolicyError, match="FECG-434"):
        spend(folder, *spends, purpose=Purpose("hf", RUN, "survival", 2))


def test_a_site_whose_ledger_is_older_than_the_one_that_was_seen_does_nothing(tmp_path, caplog):
    """Through the app: the same task, with the head that the coordinator saw, before and after a restore."""
    folder = write_site(tmp_path / "site", privacy=BUDGET)
    join(folder, LOCK)
    spend(folder, Spend("hazard", "train", 9.0))
    old = shutil.copytree(folder, tmp_path / "old")
    seen = spend(folder, Spend("hazard", "train", 9.0))

    def asked(of: Path) -> str:
        return failed(
            said(
                train(
                    of,
                    task_of(LOCK, ledger={"north": seen, "south": seen.model_copy(update={"sequence": 99})}),
                )
            )
        )

    assert asked(folder) not in {"FECG-435", "FECG-501"}  # there is no signal store
    assert asked(old) == "FECG-435"
    assert "found 1 entries, without the one that the coordinator saw last (2)" in caplog.text
    for name in ("ledger.sqlite", "ledger.key"):
        (old / name).unlink()
    assert asked(old) == "FECG-435"
    assert not (old / "ledger.sqlite").exists()


def test_a_ledger_that_was_edited_stops_the_site(tmp_path):
    folder = write_site(tmp_path, privacy=BUDGET)
    spend(folder, Spend("hazard", "train", 9.0))
    file = folder / "ledger.sqlite"
    file.write_bytes(file.read_bytes().replace(b'"noise_multiplier":9.0', b'"noise_multiplier":99.'))
    assert failed(join(folder, LOCK)) == "FECG-432"


# The command


def test_the_command_shows_what_was_spent_and_what_is_left(tmp_path, capsys):
    folder = write_site(tmp_path, privacy=BUDGET)
    assert main(["ledger", str(folder)]) == 0
    assert capsys.readouterr().out == "nothing was released with differential privacy yet\n"
    assert not (folder / "ledger.sqlite").exists()
    for number in range(3):
        spend(folder, Spend("hazard", "train", 9.0), purpose=Purpose("hf", RUN, "survival", number))
    head = spend(folder, Spend("histogram", "test", 4.0), purpose=Purpose("hf", RUN, "evaluate", 0))
    assert main(["ledger", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["sequence"], document["sha256"]) == (4, head.sha256)
    first, second = document["spends"]
    assert (first["study"], first["run"], first["phase"], first["mechanism"], first["part"]) == (
        "hf", RUN, "survival", "hazard", "train",
    )  # fmt: skip
    assert (first["releases"], first["noise-multiplier"], second["releases"]) == (3, 9.0, 1)
    spent = document["epsilon"]
    assert first["epsilon"] == pytest.approx(spent["train"]["rdp"])
    assert second["epsilon"] == pytest.approx(spent["test"]["rdp"])
    for part in ("train", "test"):
        assert 0 < spent[part]["prv"] <= spent[part]["rdp"]
    assert document["left"] == pytest.approx(4.0 - max(spent[part]["rdp"] for part in ("train", "test")))
    assert main(["ledger", str(folder)]) == 0
    told = capsys.readouterr().out
    assert (
        f"hf                   survival   hazard     train             3    9.000 {first['epsilon']:13.3f}"
        in told
    )
    assert f"budget     epsilon 4 at delta 1e-05, left {document['left']:.3f}" in told
    for part in ("train", "test"):
        left = document["left-by-part"][part]
        assert left == pytest.approx(4.0 - spent[part]["rdp"])
        assert f"{part:10} epsilon {spent[part]['rdp']:.3f} (RDP, counted)" in told
        assert f"left at least {left:.3f}" in told


def test_the_sites_status_says_how_much_epsilon_is_left_beside_an_open_ledger(tmp_path, capsys):
    folder = write_site(tmp_path, privacy=BUDGET)
    (folder / "state").mkdir(exist_ok=True)

    def shown(command: str) -> dict[str, object]:
        capsys.readouterr()
        assert main([command, str(folder), "--json"]) == 0
        return dict(json.loads(capsys.readouterr().out))

    assert shown("status")["epsilon-left"] == 4.0
    spend(folder, Spend("hazard", "train", 9.0))
    left = shown("ledger")["left"]
    assert 0 < left < 4.0
    with open_ledger(folder):  # as a task has it while it spends
        assert shown("status")["epsilon-left"] == left
        assert main(["status", str(folder)]) == 0
        assert f"privacy  epsilon {left:.3f} is left" in capsys.readouterr().out
    toml = (folder / "site.toml").read_text()
    (folder / "site.toml").write_text(toml.replace("epsilon = 4.0", "epsilon = 6.0"))
    assert shown("status")["epsilon-left"] == pytest.approx(left + 2.0)  # of the budget as it stands now
    (folder / "state" / "epsilon-spent.json").unlink()
    assert shown("status")["epsilon-left"] is None  # something was spent, and nobody has written what is left


def test_a_site_without_a_budget_has_no_epsilon_left_to_tell(tmp_path, capsys):
    folder = write_site(tmp_path)
    assert main(["status", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["epsilon-left"] is None


def test_the_command_shows_each_study_by_itself_with_its_runs(tmp_path, capsys):
    folder = write_site(tmp_path, privacy=BUDGET)
    spend(folder, Spend("hazard", "train", 9.0), purpose=Purpose("hf", RUN, "survival", 1))
    spend(folder, Spend("hazard", "train", 9.0), purpose=Purpose("hf", "another", "survival", 1))
    spend(folder, Spend("events", "train", 12.0), purpose=Purpose("af", RUN, "survey", 0))
    assert main(["ledger", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    hf, af = document["studies"]
    assert (hf["study"], hf["runs"], af["study"], af["runs"]) == ("hf", 2, "af", 1)
    assert hf["epsilon"] == {
        "train": pytest.approx(epsilon_of([Spend("hazard", "train", 9.0, steps=2)], 1e-5))
    }
    assert af["epsilon"] == {"train": pytest.approx(epsilon_of([Spend("events", "train", 12.0)], 1e-5))}
    together = document["epsilon"]["train"]["rdp"]
    assert max(hf["epsilon"]["train"], af["epsilon"]["train"]) < together
    assert together < hf["epsilon"]["train"] + af["epsilon"]["train"]
    assert main(["ledger", str(folder)]) == 0
    said = (
        f"hf                   2 run(s), epsilon of a patient at most: train {hf['epsilon']['train']:.3f}\n"
    )
    assert said in capsys.readouterr().out


def test_verify_tells_a_sound_ledger_from_an_edited_one_by_its_exit_status(tmp_path, capsys, monkeypatch):
    folder = write_site(tmp_path, privacy=BUDGET)
    head = spend(folder, Spend("hazard", "train", 9.0))
    monkeypatch.chdir(folder)
    assert main(["ledger", "verify"]) == 0
    assert capsys.readouterr().out == "sound: 1 entries, each following the one before\n"
    assert main(["ledger", "verify", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"sequence": 1, "sha256": head.sha256, "sound": True}
    (folder / "ledger.key").write_bytes(b"\0" * 32)
    assert main(["ledger", "verify", "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["code"] == "FECG-433"
    with pytest.raises(SystemExit) as wrong:
        main(["ledger", "verify", "one", "two"])
    assert wrong.value.code == 2


def test_a_site_that_states_no_epsilon_reads_its_ledger_all_the_same(tmp_path, capsys):
    folder = write_site(tmp_path, privacy=BUDGET)
    spend(folder, Spend("hazard", "train", 9.0))
    write_site(tmp_path)
    assert main(["ledger", str(folder)]) == 0
    assert "no budget: [privacy] of site.toml states no epsilon" in capsys.readouterr().out


def test_no_name_of_a_patient_is_shown_or_kept(tmp_path, capsys):
    secret = "patient-4711"
    table = f"record,patient,part,event,follow_up_days,age_years,female,codes\n0,{secret},train,1,10.0,60.0,1.0,{{}}\n"
    folder = write_site(tmp_path, cohort=table, privacy=BUDGET)
    spend(folder, Spend("hazard", "train", 9.0))
    for words in (["ledger"], ["ledger", "--json"], ["ledger", "verify"]):
        assert (
            main(
                [*words[:1], *words[1:2], str(folder)]
                if words[1:] == ["verify"]
                else [words[0], str(folder), *words[1:]]
            )
            == 0
        )
    assert secret not in capsys.readouterr().out
    for file in folder.iterdir():
        assert file.name == "cohort.csv" or secret.encode() not in file.read_bytes()


# Preflight


def privacy_check(folder: Path):
    (check,) = [check for check in quick_checks(open_site(folder)) if check.name == "privacy"]
    return check


def test_preflight_says_that_a_study_needs_a_budget(tmp_path):
    folder = write_site(tmp_path)
    assert privacy_check(folder).ok
    propose(folder, LOCK)
    check = privacy_check(folder)
    assert (check.ok, check.code, check.kind) == (False, "FECG-438", "policy")
    assert "epsilon = 8.0" in check.fix
    write_site(tmp_path, privacy=BUDGET)
    assert privacy_check(folder).found == "epsilon 4 at delta 1e-05; a sound ledger of 0 entries"


def test_preflight_reads_the_ledger(tmp_path):
    folder = write_site(tmp_path, privacy=BUDGET)
    spend(folder, Spend("hazard", "train", 9.0))
    assert "a sound ledger of 1 entries" in privacy_check(folder).found
    (folder / "ledger.key").unlink()
    assert privacy_check(folder).code == "FECG-433"
    with pytest.raises(PolicyError, match="FECG-433"), open_ledger(folder):
        pass
