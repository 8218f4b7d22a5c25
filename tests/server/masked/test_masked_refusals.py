"""What masked sums refuse: a server that asks for more, keys that are not the sites', settings that rule them out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message, RecordDict
from masked_study import LOST, NAMES, Make, WatchedGrid, plain_surveys

from fedecg.config import StudySettings, load_site
from fedecg.errors import FedecgError, FederationError, PolicyError, SettingsError
from fedecg.federation.identity import public_key_of
from fedecg.federation.lock import StudyLock
from fedecg.federation.masked import CensusTask, KeysTask, UnmaskReply, UnmaskTask, refuse_unmaskable
from fedecg.federation.masking_terms import KeyEntry, signed_by
from fedecg.federation.messages import document_of, pack, read_reply, unpack
from fedecg.federation.tasks import Failure, SurveyReply, SurveyTask
from fedecg.progress import Progress
from fedecg_client import masks
from fedecg_client.keys import make_key
from fedecg_client.pinned import pin
from fedecg_server.run_folder import RunFolder, read_json
from fedecg_server.study import Study, run_study
from fedecg_simulations.grid import FIRST_NODE, InProcessGrid


def test_two_sites_cannot_mask_their_sums(study: Make) -> None:
    made, _ = study(sites=NAMES[:2])
    with pytest.raises(FederationError, match="FECG-564 sites of a masked sum: found 2"):
        made.join()


def test_an_update_that_cannot_be_masked_is_left_out_under_its_code(study: Make, folder: Path) -> None:
    """A bound that no site keeps: nobody's update leaves."""
    made, _ = study()
    tight = made.settings.privacy.model_copy(update={"masked_bound": 1e-9})
    made.settings = made.settings.model_copy(update={"privacy": tight})
    made.lock = made.consortium.lock = made.lock.model_copy(
        update={"settings": made.lock.settings | {"privacy": tight.model_dump(by_alias=True)}}
    )
    made.join()
    with pytest.raises(FederationError, match=r"FECG-564 .*rejected: city \(FECG-445\), coast \(FECG-445\)"):
        made.align()


def test_settings_that_need_a_single_sites_numbers_are_refused_at_start(
    study: Make, settings: StudySettings, tmp_path: Path
) -> None:
    federation = settings.federation.model_copy(update={"algorithm": "median", "transfer": "float16"})
    evaluation = settings.evaluation.model_copy(update={"explain": True, "baselines": True})
    wrong = settings.model_copy(
        update={
            "federation": federation,
            "evaluation": evaluation,
            "privacy": settings.privacy.model_copy(update={"sums": "masked"}),
        }
    )
    with pytest.raises(SettingsError) as refused:
        refuse_unmaskable(wrong)
    for named in ("FECG-565", "median", "transfer", "explain", "baselines"):
        assert named in str(refused.value)
    _, grid = study()
    with pytest.raises(SettingsError, match="FECG-565"):
        run_study(grid, wrong, RunFolder(tmp_path / "run"), Progress())
    assert grid.seen == []  # nobody was asked anything


def asked(study: Study, grid: InProcessGrid, kind: str, content: RecordDict, site: str = "city") -> Message:
    (identity,) = grid.push_messages([Message(content, study.consortium.members[site].node, kind)])
    (reply,) = grid.pull_messages([identity])
    return reply


def code_of(reply: Message) -> str:
    return Failure.model_validate_json(json.dumps(document_of(reply.content))).failed


def test_at_its_start_a_masked_study_says_that_no_threshold_is_held_on_totals(
    masked: tuple[Study, dict[str, Any], WatchedGrid],
) -> None:
    (note,) = read_json(masked[0].folder.path / "status.json")["notes"]
    assert note.startswith("masked sums: the sites' thresholds are not held on totals")


def test_a_site_answers_no_task_in_plain_that_was_to_be_masked(
    masked: tuple[Study, dict[str, Any], WatchedGrid], survey_task: SurveyTask
) -> None:
    study, _, grid = masked
    content = pack(survey_task, study._vector("survival"))
    assert code_of(asked(study, grid, "query.survey", content)) == "FECG-447"
    unnamed = UnmaskTask(**study.consortium.task_fields("survival", 0), answered=NAMES, bundles={})
    assert code_of(asked(study, grid, "query.unmask", pack(unnamed))) == "FECG-447"


def test_a_site_opens_a_sum_once(study: Make, folder: Path) -> None:
    """The server says that university was lost, after it has opened the sum with university in it."""
    made, grid = study()
    sent: list[UnmaskTask] = []

    def note(node: int, message: Message) -> Message:
        if node == FIRST_NODE:
            sent.append(unpack(message.content, UnmaskTask)[0])
        return message

    grid.changed = {"query.unmask": note}
    made.join()  # the census
    (task,) = sent
    again = asked(made, grid, "query.unmask", pack(task))
    assert read_reply(again, UnmaskReply)[0].site == "city"  # the same again may be sent again
    without = [name for name in NAMES if name != "university"]
    story = task.model_copy(update={"answered": without})
    assert code_of(asked(made, grid, "query.unmask", pack(story))) == "FECG-444"
    few = task.model_copy(update={"answered": ["city", "coast", "rural"]})
    assert code_of(asked(made, grid, "query.unmask", pack(few))) == "FECG-444"
    wrong = task.model_copy(update={"bundles": dict.fromkeys(NAMES, "bm90IHNlYWxlZA==")})
    assert code_of(asked(made, grid, "query.unmask", pack(wrong))) == "FECG-569"
    no_text = task.model_copy(update={"bundles": dict.fromkeys(NAMES, "?")})
    assert code_of(asked(made, grid, "query.unmask", pack(no_text))) == "FECG-569"


def test_a_server_that_swaps_a_key_gets_no_numbers(study: Make) -> None:
    """It may sign with a key of its own: in a deployment the lock names whose keys count."""
    made, _ = study()
    made.join()
    assert made.masked is not None
    entry = made.masked.keys["coast"]
    forged = entry.model_copy(update={"key": "11" * 32})
    made.masked.keys["coast"] = forged
    with pytest.raises(FederationError, match="FECG-564 .*rejected: city .FECG-568.*valley .FECG-568"):
        made.align()


def test_a_deployed_site_takes_the_keys_of_its_lock_alone(
    masked: tuple[Study, dict[str, Any], WatchedGrid], folder: Path, tmp_path: Path
) -> None:
    study = masked[0]
    home = tmp_path / "city"
    home.mkdir()
    own = make_key(home / "node.key")
    (home / "ca.crt").write_text("")
    (home / "site.toml").write_text(
        'name = "city"\nstore = "s"\ncohort = "c"\n[server]\naddress = "a.example:1"\nca = "ca.crt"\nkey = "node.key"\n'
    )
    site = load_site(home / "site.toml")
    others = {name: ec.generate_private_key(ec.SECP384R1()) for name in ("coast", "rural")}
    fingerprints = {"city": own.fingerprint} | {
        name: public_key_of(key).fingerprint for name, key in others.items()
    }
    lock = study.lock.model_copy(update={"site_keys": fingerprints})
    pin(home, lock)
    fields = study.consortium.task_fields("survival", 0) | {"lock_sha256": lock.sha256()}
    mine = masks.keys(home, site, KeysTask(**fields)).entry
    assert signed_by(mine, lock.sha256(), study.run, "city").fingerprint == own.fingerprint
    assert masks.keys(home, site, KeysTask(**fields)).entry.key == mine.key  # one a run
    entries = {"city": mine} | {
        name: signed_entry(key, lock, study.run, name) for name, key in others.items()
    }
    check = lambda keys: masks._circle(  # noqa: E731
        home, site, CensusTask(**fields), masking(keys), masks._file(home, site, CensusTask(**fields))
    )
    assert check(entries).names == ["city", "coast", "rural"]
    servers = ec.generate_private_key(ec.SECP384R1())
    swapped = entries | {"coast": signed_entry(servers, lock, study.run, "coast")}
    with pytest.raises(
        PolicyError, match="FECG-446 keys of a masked sum: found 1 of 3 that are not their sites'"
    ):
        check(swapped)
    with pytest.raises(PolicyError, match="and not this site's own"):
        check(entries | {"city": signed_entry(servers, lock, study.run, "city")})
    for pinned in (home / "state" / "locks").glob("*.json"):
        pinned.rename(pinned.with_suffix(".away"))
    with pytest.raises(
        PolicyError, match="found 3 of 3"
    ):  # policy.studies = ["*"] pins no lock: nobody is known
        check(entries)
    for away in (home / "state" / "locks").glob("*.away"):
        away.rename(away.with_suffix(".json"))
    file = masks._file(home, site, CensusTask(**fields))
    assert file.stat().st_mode & 0o077 == 0
    file.write_text("{}")
    with pytest.raises(
        FederationError, match="FECG-569 this site's key for masked sums: found content that cannot be read"
    ):
        check(entries)


def masking(keys: dict[str, KeyEntry]) -> Any:
    from fedecg.federation.masking_terms import Masking

    return Masking(number="0" * 32, keys=keys)


def signed_entry(key: ec.EllipticCurvePrivateKey, lock: StudyLock, run: str, name: str) -> KeyEntry:
    from cryptography.hazmat.primitives.hashes import SHA384

    from fedecg.federation.masking_terms import signed_words
    from fedecg.privacy.masking import fresh_key, public_bytes

    public = public_bytes(fresh_key()).hex()
    signature = key.sign(signed_words(lock.sha256(), run, name, public), ec.ECDSA(SHA384())).hex()
    return KeyEntry(key=public, enrolment=public_key_of(key).text, signature=signature)


def test_the_lock_names_the_keys_that_count(study: Make) -> None:
    """With a list of sites the server takes no other key either: FECG-568 for each, so nobody is left."""
    assert any("keys of the sites: as they come" in line for line in study()[0].lock.summary())
    assert not any(line.startswith("Masks") for line in study("plain")[0].lock.summary())
    made, _ = study()
    other = public_key_of(ec.generate_private_key(ec.SECP384R1())).fingerprint
    made.lock = made.consortium.lock = made.lock.model_copy(update={"site_keys": dict.fromkeys(NAMES, other)})
    assert any(f"keys of the sites: city {other}, coast" in line for line in made.lock.summary())
    with pytest.raises(FedecgError, match="FECG-564 sites of a masked sum: found 0"):
        made.join()


def test_a_site_that_demands_masks_joins_no_plain_study(study: Make, folder: Path, tmp_path: Path) -> None:
    made, _ = study("plain")
    site = load_site(folder / "city" / "site.toml")
    strict = site.model_copy(update={"privacy": site.privacy.model_copy(update={"sums": "masked"})})
    with pytest.raises(PolicyError, match='FECG-447 .*found privacy.sums = "plain" in the study'):
        masks.refuse_plainer_sums(strict, made.settings)
    masks.refuse_plainer_sums(site, made.settings)


def test_replies_that_do_not_fit_together_are_left_out(study: Make) -> None:
    """One site answers a survey of a coarser grid: its layout is another one."""
    made, grid = study()
    made.join()

    def coarser(node: int, message: Message) -> Message:
        task, weights = unpack(message.content, SurveyTask)
        if node != LOST:
            return message
        survival = task.settings["survival"] | {"grid-days": 60.0}
        changed = task.model_copy(update={"settings": task.settings | {"survival": survival}})
        return Message(pack(changed, weights), node, "query.survey")

    grid.changed = {"query.survey": coarser}
    assert made.masked is not None
    asked = SurveyTask(**made.consortium.task_fields("survival", 0))
    start = made._vector("survival")
    opened = made.masked.ask("query.survey", asked, start, SurveyReply)
    assert opened.gathered.rejected == {"university": "FECG-567"}
    replies = plain_surveys(study, start)
    others = [replies[name].train_events for name in NAMES if name != "university"]
    assert opened.reply.train_events == np.sum(others, axis=0).tolist()
