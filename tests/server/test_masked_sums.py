"""Secure sums through the real apps: equal to plain ones, whoever is lost, and nothing of one site for the server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from scipy.stats import chisquare

from fedecg.config import (
    DataSettings,
    ModelSettings,
    SignalSettings,
    StudySettings,
    load_site,
    parse_settings,
)
from fedecg.errors import FedecgError, FederationError, PolicyError, SettingsError
from fedecg.federation.documents import ALL
from fedecg.federation.identity import public_key_of
from fedecg.federation.lock import StudyLock
from fedecg.federation.masked import (
    CensusReply,
    CensusTask,
    KeysTask,
    MaskedReply,
    UnmaskReply,
    UnmaskTask,
    refuse_unmaskable,
)
from fedecg.federation.masking_terms import KeyEntry, signed_by
from fedecg.federation.messages import document_of, pack, read_reply, unpack
from fedecg.federation.tasks import Failure, SurveyReply, SurveyTask
from fedecg.privacy.fixed_point import update_error
from fedecg.progress import Progress
from fedecg.signals import build_store, store_key
from fedecg_client import masks
from fedecg_client.app import app as client_app
from fedecg_client.keys import make_key
from fedecg_client.pinned import pin
from fedecg_server.run_folder import RunFolder
from fedecg_server.study import Study, run_study
from fedecg_simulations.grid import FIRST_NODE, InProcessGrid
from fedecg_simulations.partitions import partition
from fedecg_simulations.sites import write_sites
from fedecg_simulations.sources import load_dataset

NAMES = ["city", "coast", "rural", "university", "valley"]
LOST = FIRST_NODE + 3  # university


class WatchedGrid(InProcessGrid):
    """Keeps every reply, as a curious server would; loses those of some nodes to some kinds of message."""

    def __init__(self, nodes: dict[int, dict[str, str]]) -> None:
        super().__init__(client_app, nodes)
        self.lost: dict[str, set[int]] = {}  # kind of message -> nodes whose reply never comes
        self.changed: dict[
            str, Callable[[int, Message], Message]
        ] = {}  # kind -> changes what the server sends
        self.seen: list[tuple[str, RecordDict]] = []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        sent = []
        for message in messages:
            kind, node = message.metadata.message_type, message.metadata.dst_node_id
            change = self.changed.get(kind)
            (identity,) = super().push_messages([message if change is None else change(node, message)])
            if node in self.lost.get(kind, set()):
                self._replies[identity] = Message(Error(ErrorCode.NODE_UNAVAILABLE), reply_to=message)
            elif not self._replies[identity].has_error():
                self.seen.append((kind, self._replies[identity].content))
            sent.append(identity)
        return sent

    def get_node_ids(self) -> Iterable[int]:
        return [node for node in super().get_node_ids() if node not in self.lost.get("everything", set())]


@pytest.fixture(scope="module")
def settings() -> StudySettings:
    tree = {
        "seed": 11,
        "align": {"rounds": 1, "local-steps": 1, "batch-size": 16},
        "survival": {"rounds": 1, "local-steps": 1, "batch-size": 16},
        "evaluation": {"explain": False},
        "federation": {"quorum": 1, "deadline-s": 0.2, "patience-s": 0.0, "grace-s": 0.1},
    }
    people = {"city": 50, "coast": 40, "university": 36, "rural": 40, "valley": 30}
    return parse_settings(StudySettings, tree).model_copy(
        update={
            "data": DataSettings(sites=people, test_patients=40),
            "model": ModelSettings(size="small"),
            "signals": SignalSettings(samples=256),
        }
    )


@pytest.fixture(scope="module")
def folder(settings: StudySettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parent of five site folders."""
    root = tmp_path_factory.mktemp("masked")
    dataset = load_dataset(settings)
    key = store_key(settings.signals, dataset.source, "none")
    store = build_store(root / "store", key, settings.signals, dataset.recordings, powerline="none")
    write_sites(
        dataset.cohort, store.folder, partition(dataset, settings.partition, settings.seed), root / "sites"
    )
    return root / "sites"


Make = Callable[..., tuple[Study, WatchedGrid]]


@pytest.fixture(scope="module")
def study(settings: StudySettings, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A study over the five sites, or some of them, that nobody has joined yet."""

    def make(sums: str = "masked", sites: Iterable[str] = NAMES) -> tuple[Study, WatchedGrid]:
        privacy = settings.privacy.model_copy(update={"sums": sums})
        changed = settings.model_copy(update={"privacy": privacy})
        nodes = {
            FIRST_NODE + NAMES.index(name): {"site-folder": str(folder / name)} for name in sorted(sites)
        }
        grid, run_folder = WatchedGrid(nodes), RunFolder(tmp_path_factory.mktemp("run"))
        run_folder.begin(changed)
        return Study(grid, changed, run_folder, Progress()), grid

    return make


def trained(study: Study) -> dict[str, Any]:
    """Join, both stages, the final evaluation; returns the result."""
    study.join()
    study.align()
    return study.conclude(*study.survive())


@pytest.fixture(scope="module")
def plain(study: Make) -> tuple[Study, dict[str, Any]]:
    made, _ = study("plain")
    return made, trained(made)


@pytest.fixture(scope="module")
def masked(study: Make) -> tuple[Study, dict[str, Any], WatchedGrid]:
    made, grid = study()
    return made, trained(made), grid


def read(study: Study, name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((study.folder.path / name).read_text())
    return document


def test_a_masked_study_ends_where_the_plain_one_does(
    plain: tuple[Study, dict[str, Any]], masked: tuple[Study, dict[str, Any], WatchedGrid]
) -> None:
    """Weights within the stated error (a step of Adam may magnify it in the next round), figures equal."""
    one, other = plain[0], masked[0]
    difference = np.abs(one.trained["align"].whole() - other.trained["align"].whole()).max()
    assert difference <= update_error(5, 1.0) * 1.5 + 1e-7  # and one rounding of float32 each
    survival = np.abs(one.trained["survival"].whole() - other.trained["survival"].whole())
    assert np.median(survival) < 1e-7
    assert survival.max() < 2e-3
    assert plain[1]["evaluation"] == masked[1]["evaluation"]
    assert masked[1]["status"] == "completed"


def test_what_is_made_of_sums_is_the_same_and_what_is_made_of_sites_is_not_there(
    plain: tuple[Study, dict[str, Any]], masked: tuple[Study, dict[str, Any], WatchedGrid]
) -> None:
    one, other = read(plain[0], "assessment.json"), read(masked[0], "assessment.json")
    for part in (
        "concordance",
        "survival",
        "brier",
        "auc",
        "uno",
        "risk-calibration",
        "decision",
        "subgroups",
    ):
        assert same_but_for_rounding(one[part], other[part]), part
    assert list(other["sites"]) == [ALL]
    assert other["log-rank-by-site"]["p-value"] is None
    assert other["log-rank"]["p-value"] == pytest.approx(one["log-rank"]["p-value"])
    assert masked[1]["sites"] == [{"name": name} for name in NAMES]
    joined = plain[1]["sites"]
    for part, counts in masked[1]["parts-of-all-sites"].items():
        assert counts["patients"] == sum(site["parts"][part]["patients"] for site in joined)


def same_but_for_rounding(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_but_for_rounding(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same_but_for_rounding, one, other))
    return bool(one == other or (one is not None and one == pytest.approx(other, rel=1e-4, abs=1e-6)))


def test_no_reply_of_a_masked_study_says_anything_of_its_site(
    masked: tuple[Study, dict[str, Any], WatchedGrid],
) -> None:
    """Documents: names, lengths, seals. Vectors: uniform bytes, whatever was asked."""
    kinds: dict[str, int] = {}
    for kind, content in masked[2].seen:
        document = document_of(content)
        kinds[kind] = kinds.get(kind, 0) + 1
        if kind == "query.join":
            assert document["parts"] == {}
        elif kind in ("query.keys", "query.unmask"):
            assert set(document) in ({"site", "entry"}, {"site", "tag", "own", "pairs"})
        else:
            assert set(document) == {"site", "tag", "layout", "same", "bundles", "commitments"}
            for name, value in document["same"].items():
                last = name.rsplit("/", 1)[-1]
                known = {
                    "round": 1,
                    "version": 1,
                    "withheld": False,
                    "code_fingerprint": masked[0].lock.code_fingerprint,
                }
                assert value is None or value == known[last], name
            vector = unpack(content, MaskedReply)[1]
            assert vector is not None
            if vector.nbytes > 5000:
                assert chisquare(np.bincount(vector.view(np.uint8), minlength=256)).pvalue > 1e-6
    assert kinds == {
        "query.join": 5, "query.keys": 5, "query.census": 5, "query.survey": 5, "train": 10, "evaluate": 10,
        "query.assess": 5, "query.unmask": 35,
    }  # fmt: skip


def test_a_masked_round_costs_few_more_bytes(
    plain: tuple[Study, dict[str, Any]], masked: tuple[Study, dict[str, Any], WatchedGrid]
) -> None:
    for one, other in zip(plain[0].records, masked[0].records, strict=True):
        assert other.bytes <= 1.1 * one.bytes + 5 * 65_536


@pytest.mark.parametrize("phase", ["query.survey", "query.unmask"])
def test_a_site_lost_in_either_message_leaves_the_right_sum_of_the_others(
    study: Make, plain: tuple[Study, dict[str, Any]], phase: str
) -> None:
    made, grid = study()
    made.join()
    grid.lost = {phase: {LOST}}
    start = made._vector("survival")
    asked = SurveyTask(**made.consortium.task_fields("survival", 0))
    assert made.masked is not None
    opened = made.masked.ask("query.survey", asked, start, SurveyReply)
    with_all = phase == "query.unmask"  # its words came; only the shares did not
    answered = [name for name in NAMES if with_all or name != "university"]
    assert sorted(opened.gathered.replies) == answered
    replies = plain_surveys(study, start)
    chosen = [replies[name] for name in answered]
    assert opened.reply.train_events == np.sum([one.train_events for one in chosen], axis=0).tolist()
    np.testing.assert_allclose(
        opened.reply.train_exp_sums, np.sum([one.train_exp_sums for one in chosen], axis=0), atol=1e-10
    )
    assert opened.reply.risk.patients == sum(one.risk.patients for one in chosen)
    joined = {site["name"]: site["parts"] for site in plain[1]["sites"]}
    assert opened.parts["train"].events == sum(joined[name]["train"]["events"] for name in answered)


def plain_surveys(study: Make, start: Any) -> dict[str, SurveyReply]:
    made, _ = study("plain")
    made.join()
    return made.questions.survey(start)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["query.keys", "query.census", "train", "evaluate"])
def test_a_study_goes_on_without_a_site_that_is_lost(study: Make, phase: str) -> None:
    made, grid = study()
    grid.lost = {phase: {LOST}}
    result = trained(made)
    assert result["status"] == ("completed" if phase == "query.census" else "completed-partial")
    rounds = [record for record in made.records if record.stage == "survival"]
    there = [name for name in NAMES if name != "university" or phase not in ("query.keys", "train")]
    assert rounds[-1].answered == there


def test_a_sum_of_too_few_sites_stays_closed(study: Make) -> None:
    made, grid = study()
    made.join()
    assert made.masked is not None
    census = CensusTask(**made.consortium.task_fields("align", 0))
    grid.lost = {"query.census": {LOST, LOST + 1}}
    with pytest.raises(
        FederationError, match=r"FECG-564 masked sum \(query.census\): found 3 .*at least 4 of 5"
    ):
        made.masked.ask("query.census", census, None, CensusReply)
    grid.lost = {"query.unmask": {LOST, LOST + 1}}
    with pytest.raises(FederationError, match="FECG-564 shares of a mask: found 3; expected at least 4"):
        made.masked.ask("query.census", census, None, CensusReply)
    grid.lost = {}
    assert len(made.masked.ask("query.census", census, None, CensusReply).gathered.replies) == 5


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


# What a site does, whatever the server says.


@pytest.fixture
def survey_task(masked: tuple[Study, dict[str, Any], WatchedGrid]) -> SurveyTask:
    study = masked[0]
    return SurveyTask(**study.consortium.task_fields("survival", 0))


def asked(study: Study, grid: InProcessGrid, kind: str, content: RecordDict, site: str = "city") -> Message:
    (identity,) = grid.push_messages([Message(content, study.consortium.members[site].node, kind)])
    (reply,) = grid.pull_messages([identity])
    return reply


def code_of(reply: Message) -> str:
    return Failure.model_validate_json(json.dumps(document_of(reply.content))).failed


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
    file = masks._file(home, site, CensusTask(**fields))
    assert file.stat().st_mode & 0o077 == 0
    file.write_text("{}")
    with pytest.raises(FederationError, match="FECG-569 this site's key for masked sums: found KeyError"):
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
