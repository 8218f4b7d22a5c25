"""Masked sums at a site: its key for a run, its replies under masks, and the shares that open a sum, once.

In:  tasks that the gate has let in; plain replies, which stay here. Out: the same as words under masks; sealed shares.
     On disk masks/STUDY-RUN.json (0600): the private key of the run, and of each sum a hash of the words that went
     under its masks, and whom it was opened for.
Called by the ClientApp. What the masks guarantee: `fedecg.privacy.masking`.

A reply is judged before it is masked, since nobody can afterwards: finite, within the agreed bounds, counts that fit
each other and the cohort. A site that was added with a key trusts the keys in the lock that it agreed to, and no
others; the virtual sites of a simulation, which agree to nothing, take each other's as they come.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA384
from flwr.app import RecordDict
from numpy.typing import NDArray

from fedecg.config import Section, SiteSettings, StudySettings, parse_settings
from fedecg.errors import FederationError, PolicyError
from fedecg.evaluation import RiskTimeGrid, check_site_sums
from fedecg.federation.aggregation import aggregation_weight
from fedecg.federation.documents import GridDocument, JoinedPart, PartCounts
from fedecg.federation.hazard import check_exp_sums, check_part_counts, check_survey
from fedecg.federation.identity import public_key_of
from fedecg.federation.masked import (
    CensusReply,
    CensusTask,
    KeysReply,
    KeysTask,
    MaskedReply,
    UnmaskReply,
    UnmaskTask,
    as_bytes,
    as_text,
    joined_words,
    parted_words,
    refuse_unmaskable,
    told,
    update_words,
)
from fedecg.federation.masking_terms import KeyEntry, Masking, signed_by, signed_words
from fedecg.federation.messages import pack, unpack
from fedecg.federation.sums import AssessReply, AssessTask
from fedecg.federation.tasks import (
    EvaluateReply,
    EvaluateTask,
    SurveyReply,
    SurveyTask,
    Task,
    TrainReply,
    TrainTask,
)
from fedecg.files import in_words, write_whole
from fedecg.privacy.masking import Circle, Words, fresh_key, mask, open_shares, public_bytes
from fedecg.privacy.withdrawal import read_site_cohort
from fedecg_client.keys import load_key, make_key
from fedecg_client.opened import State, state_of_data
from fedecg_client.pinned import pinned_lock
from fedecg_client.work import evaluation_grid, parts_of
from fedecg_client.workplace import made_state

__all__ = ["keys", "refuse_plainer_sums", "under_masks", "unmask"]

Parts = dict[JoinedPart, PartCounts]
Weights = NDArray[Any] | None
NO_WORDS = np.zeros(0, dtype=np.uint32)
REPLIES: dict[type[Task], type[Section]] = {
    CensusTask: CensusReply,
    SurveyTask: SurveyReply,
    TrainTask: TrainReply,
    EvaluateTask: EvaluateReply,
    AssessTask: AssessReply,
}


def refuse_plainer_sums(site: SiteSettings, study: StudySettings) -> None:
    """A study whose sums leave less protected than the site demands, or that cannot be masked as it says.

    Raises:
        PolicyError: FECG-447. SettingsError: FECG-565.
    """
    order = ["any", "plain", "masked", "noised"]
    if order.index(study.privacy.sums) < order.index(site.privacy.sums):
        raise _plainer(
            f'privacy.sums = "{study.privacy.sums}" in the study', f'"{site.privacy.sums}", as site.toml says'
        )
    if study.privacy.sums == "masked":
        refuse_unmaskable(study)


def keys(folder: Path, site: SiteSettings, task: KeysTask) -> KeysReply:
    """The site's public key for the masked sums of a run, signed; its private half stays until the next run.

    Raises:
        RunError: FECG-601 it cannot be kept; FECG-643 no enrolment key.
    """
    file = _file(folder, site, task)
    if not file.exists():
        for earlier in file.parent.glob(f"{task.settings['name']}-*.json"):
            if _study_of(earlier) == _study_of(file):
                earlier.unlink(missing_ok=True)  # nothing of an earlier run can be opened any more
        _write(file, {"key": fresh_key().private_bytes_raw().hex(), "masked": {}, "opened": {}})
    public = public_bytes(_private_key(file)).hex()
    signing = _enrolment_key(folder, site)
    words = signed_words(task.lock_sha256, task.run, site.name, public)
    signature = signing.sign(words, ec.ECDSA(SHA384())).hex()
    entry = KeyEntry(key=public, enrolment=public_key_of(signing).text, signature=signature)
    return KeysReply(site=site.name, entry=entry)


def under_masks(
    folder: Path, site: SiteSettings, task: Task, received: Weights, content: RecordDict
) -> RecordDict:
    """What leaves in place of a plain reply; the reply itself where the study's sums are not masked.

    Args:
        folder, site: where this is.
        task: that was done.
        received: weights that it carried.
        content: the plain reply.

    Raises:
        PolicyError: FECG-447 a task that cannot be answered under masks; FECG-446 keys of others than the sites;
            FECG-456 masks that other numbers went under.
        RunError: FECG-601 what is masked cannot be noted.
        FederationError: FECG-445 numbers that cannot be masked; as `check_site_sums`; FECG-564, FECG-568, FECG-569.
    """
    study = parse_settings(StudySettings, task.settings)
    if study.privacy.sums != "masked":
        return content
    kind = REPLIES.get(type(task))
    if kind is None or task.masking is None:
        raise _plainer(
            f"a {type(task).__name__} without masks", "masked sums alone, as the study's lock says"
        )
    reply, update = unpack(content, kind)
    parts, grid = _parts(folder, site.cohort, state_of_data(folder)), _grid_of(task)
    _check(study, task, site.name, parts, reply)
    layout, same, sums = parted_words(told(reply, parts, grid))
    words = Words(_update(study, task.masking, task, reply, update, received), sums)
    file = _file(folder, site, task)
    circle, tag = _circle(folder, site, task, task.masking, file), task.masking.tag(task.run)
    _mask_once(file, tag, words)
    masked = mask(_private_key(file), circle, site.name, tag, words)
    document = MaskedReply(
        site=site.name,
        tag=tag.hex(),
        layout=layout,
        same=same,
        bundles={name: as_text(bundle) for name, bundle in masked.bundles.items()},
        commitments={name: one.hex() for name, one in masked.commitments.items()},
    )
    return pack(document, joined_words(masked.words))


def unmask(folder: Path, site: SiteSettings, task: UnmaskTask) -> UnmaskReply:
    """The shares that open a sum for the sites that answered; never again for others.

    Raises:
        PolicyError: FECG-444 too few, or others than before; FECG-446. FederationError: FECG-568, FECG-569.
        RunError: FECG-601 what is opened cannot be kept.
    """
    if task.masking is None:
        raise _plainer("a sum without a name", "the sum that is to be opened")
    file = _file(folder, site, task)
    circle, tag = _circle(folder, site, task, task.masking, file), task.masking.tag(task.run)
    bundles = {name: as_bytes(text) for name, text in task.bundles.items()}
    opening = open_shares(_private_key(file), circle, site.name, tag, task.answered, bundles)
    _open_once(file, tag, task.answered)
    return UnmaskReply(
        site=site.name,
        tag=tag.hex(),
        own={name: as_text(share) for name, share in opening.own.items()},
        pairs={
            name: {lost: as_text(share) for lost, share in pairs.items()}
            for name, pairs in opening.pairs.items()
        },
    )


def _mask_once(file: Path, tag: bytes, words: Words) -> None:
    """On disk before masked words leave: which words went under the masks of a sum; the same may go again.

    The masks of pairs follow from the tag, and own masks are opened one by one: of two kinds of words under one tag
    the coordinator would learn the difference, of this site alone.
    """
    key = bytes.fromhex(_read(file)["key"])
    told = hmac.digest(key, joined_words(words).tobytes(), "sha256").hex()
    if not _stands(file, "masked", tag, told):
        raise PolicyError(
            "FECG-456",
            "sum that is to be masked",
            found="other numbers than those that went under its masks before",
            expected="masks of their own for every sum, and every attempt at it",
            fix="Nothing was sent: the difference of the two would be this site's own. Tell the coordinator.",
        )


def _open_once(file: Path, tag: bytes, answered: list[str]) -> None:
    """On disk before a share leaves: for whom a sum was opened."""
    story = hashlib.sha256(" ".join(sorted(answered)).encode()).hexdigest()
    if not _stands(file, "opened", tag, story):
        raise PolicyError(
            "FECG-444",
            "sum that is to be opened",
            found="another set of sites than the one it was opened for",
            expected="one set of sites a sum",
            fix="Nothing was revealed: two sums that differ by a site would tell that site's own numbers.",
        )


def _stands(file: Path, what: str, tag: bytes, told: str) -> bool:
    """Whether this is what stands on disk for a sum; what comes first is written there, and stands from then on."""
    document = _read(file)
    if document[what].setdefault(tag.hex(), told) != told:
        return False
    _write(file, document)
    return True


def _update(
    study: StudySettings, masking: Masking, task: Task, reply: Section, update: Weights, received: Weights
) -> NDArray[np.uint32]:
    """Words of the site's share in the average; none where nothing was trained."""
    if not isinstance(reply, TrainReply) or update is None or received is None:
        return NO_WORDS
    weight = aggregation_weight(study, task.stage, reply.patients, reply.events)
    share = weight / masking.scale if masking.scale else float("inf")
    return update_words(study, update, received, share)


def _check(study: StudySettings, task: Task, site: str, parts: Parts, reply: Section) -> None:
    """What the coordinator checks of a plain reply."""
    grid = _grid_of(task)
    if isinstance(reply, SurveyReply):
        check_survey(study, {site: parts}, site, reply)
    elif (
        isinstance(reply, TrainReply) and isinstance(task, TrainTask) and reply.sums and grid and task.hazard
    ):
        check_exp_sums(site, reply.sums.train_exp_sums, len(task.hazard.edges_days))
        check_part_counts(grid, parts, site, "validation", reply.sums.validation)
    elif isinstance(reply, EvaluateReply) and isinstance(task, EvaluateTask) and grid:
        check_exp_sums(site, reply.validation_exp_sums, len(task.edges_days))
        for part, counts in reply.counts.items():
            check_part_counts(grid, parts, site, part, counts)
    elif isinstance(reply, AssessReply) and isinstance(task, AssessTask):
        plan = task.plan.plan()
        check_site_sums(reply.sums(plan), plan, site)


def _grid_of(task: Task) -> RiskTimeGrid | None:
    document: GridDocument | None = getattr(task, "grid", None)
    if isinstance(task, AssessTask):
        document = task.plan.grid
    return None if document is None else evaluation_grid(document)


def _circle(folder: Path, site: SiteSettings, task: Task, masking: Masking, file: Path) -> Circle:
    """The sites of a sum, each with a key that it has signed."""
    known = _known_keys(folder, site, str(task.settings["name"]))
    own = public_bytes(_private_key(file)).hex()
    wrong = [
        name
        for name, entry in masking.keys.items()
        if not _is_theirs(entry, task.lock_sha256, task.run, name, known)
    ]
    mine = masking.keys.get(site.name)
    if wrong or mine is None or mine.key != own:
        raise PolicyError(
            "FECG-446",
            "keys of a masked sum",
            found=f"{len(wrong)} of {len(masking.keys)} that are not their sites'"
            + ("" if mine is not None and mine.key == own else ", and not this site's own"),
            expected="keys signed by the sites whose fingerprints stand in the study's lock",
            fix="Nothing was sent. Tell the coordinator, and compare fingerprints over the phone.",
        )
    return masking.circle()


def _known_keys(folder: Path, site: SiteSettings, study: str) -> dict[str, str] | None:
    """Fingerprints by name, of the lock that the site agreed to; none that agreed to none; None: a virtual site."""
    if site.server is None:
        return None
    lock = pinned_lock(folder, study)
    return {} if lock is None else lock.site_keys


@lru_cache(maxsize=4096)
def _signer(entry: KeyEntry, lock_sha256: str, run: str, site: str) -> str:
    return signed_by(entry, lock_sha256, run, site).fingerprint


def _is_theirs(entry: KeyEntry, lock_sha256: str, run: str, site: str, known: dict[str, str] | None) -> bool:
    """Signed by the site's enrolment key; for a site with a lock, the one in the lock."""
    fingerprint = _signer(entry, lock_sha256, run, site)
    return known is None or known.get(site) == fingerprint


def _enrolment_key(folder: Path, site: SiteSettings) -> ec.EllipticCurvePrivateKey:
    """node.key; a virtual site gets one when it is first needed."""
    if site.server is not None:
        return load_key(Path(site.server.key))
    file = folder / "node.key"
    if not file.exists():
        make_key(file)
    return load_key(file)


def _file(folder: Path, site: SiteSettings, task: Task) -> Path:
    """Of a run; a virtual site has no state folder."""
    place = made_state(folder) if site.server is not None else folder
    return place / "masks" / f"{task.settings['name']}-{task.run or 'unnamed'}.json"


def _study_of(file: Path) -> str:
    """hf of hf-RUN.json, and not of hf-two-RUN.json: a run's name has no hyphen."""
    return file.stem.rpartition("-")[0]


def _private_key(file: Path) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(bytes.fromhex(_read(file)["key"]))


def _read(file: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(file.read_bytes())
        return {
            "key": str(document["key"]),
            "masked": dict(document["masked"]),
            "opened": dict(document["opened"]),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FederationError(
            "FECG-569",
            "this site's key for masked sums",
            found=in_words(error),
            expected="the key that it made when the run began",
            fix="The site takes part again in the next run; nobody else can make that key.",
        ) from None


def _write(file: Path, document: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(document), private=True)


@lru_cache(maxsize=64)
def _parts(folder: Path, cohort: str, state: State) -> Parts:
    """Of the cohort table; read anew when a file of the site's data is replaced."""
    del state  # part of the key alone
    return parts_of(read_site_cohort(folder, cohort))


def _plainer(found: str, expected: str) -> PolicyError:
    return PolicyError(
        "FECG-447",
        "sums of this site",
        found=found,
        expected=expected,
        fix="Nothing was sent. Agree with the coordinator on privacy.sums, or on privacy.sums in site.toml.",
    )
