"""What a site lets in: the study that it agreed to, in the phases and at the times that its `[policy]` allows.

In:  the site's settings, the lock of a study or a task. Out: nothing, or a `PolicyError` whose text stays in the
     site's log and whose code alone goes to the coordinator; on disk the lock, and the rounds of the day.
Called by the ClientApp for every message, so that it makes no difference which of Flower's processes runs it.

A study is joined once, with the site's consent: its lock is pinned, and every later lock and task must be of the
pinned one; another waits for consent until the pinned one is served again. Consent is given by its hash
(`fedecg-client accept`, before or after the lock has come, or `policy.locks`), or, with `policy.consent = "first"`, by
naming the study. A policy of any study ("*": simulations) asks for none and pins nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fedecg.config import SiteSettings, StudySettings, parse_settings
from fedecg.errors import FederationError, PolicyError, RunError
from fedecg.explanation.documents import ExplainTask
from fedecg.federation.baselines import BaselinesTask
from fedecg.federation.lock import StudyLock
from fedecg.federation.masked import CensusTask, KeysTask, UnmaskTask
from fedecg.federation.tasks import Task, TrainTask
from fedecg.files import write_whole
from fedecg.fingerprint import code_fingerprint
from fedecg.privacy.ledger import refuse_if_behind
from fedecg_client.agreed import refuse_more_than_agreed
from fedecg_client.budget import refuse_without_budget
from fedecg_client.masks import refuse_plainer_sums
from fedecg_client.pinned import agreed_sha256, drop_proposed, pin, pinned_lock, propose
from fedecg_client.workplace import made_state, phase_of

__all__ = ["Gate"]

ANY = "*"
COUNTED = (TrainTask, BaselinesTask, ExplainTask)  # what keeps a site busy
ALLOWED_BY = {  # phase of a task -> phase of the policy
    "align": "align",
    "survey": "survival",
    "survival": "survival",
    "evaluate": "evaluate",
    "assess": "evaluate",
    "explain": "explain",
    "baselines": "baselines",
}
OF_MASKED_SUMS = (KeysTask, CensusTask, UnmaskTask)
ROUNDS = "rounds-of-the-day.json"

log = logging.getLogger("fedecg.client")


@dataclass(frozen=True)
class Gate:
    """The policy of one site.

    Attributes:
        folder: of the site.
        site: its settings.
        now: local time.
    """

    folder: Path
    site: SiteSettings
    now: Callable[[], datetime] = datetime.now

    def admit_study(self, lock: StudyLock) -> None:
        """Join a study, or refuse to.

        Raises:
            PolicyError: FECG-411 study, FECG-412 and FECG-413 another lock, FECG-414 list of sites, FECG-415 steps;
                FECG-438 differential privacy without a budget of the site.
            SettingsError: FECG-103 settings that cannot be.
            FederationError: FECG-541 other code, FECG-542 a lock that does not speak of one study; FECG-554 nobody at
                the site has agreed to it yet.
            RunError: FECG-601 the lock cannot be pinned.
        """
        self._of_an_allowed_study(lock.study)
        _speaks_of_one_study(lock)
        self._is_acceptable(lock)
        if self._keeps_nothing():
            return
        pinned = pinned_lock(self.folder, lock.study)
        if pinned is not None and pinned.sha256() == lock.sha256():
            drop_proposed(self.folder, lock.study)
            return
        agreed = agreed_sha256(self.folder, lock.study)
        if agreed != lock.sha256() and (pinned or not self._consents_unasked(lock)):
            propose(self.folder, lock)
            raise _changed_lock(lock, pinned) if pinned else _nobody_agreed(lock, agreed)
        pin(self.folder, lock)
        log.info("%s joins a study:\n  %s", self.site.name, "\n  ".join(lock.summary()))

    def admit(self, task: Task) -> None:
        """Is the task of the study that was joined, and of an allowed phase?

        Raises:
            PolicyError: FECG-411..415, FECG-438 as `admit_study`; FECG-416 not of the pinned lock; FECG-417 phase;
                FECG-435 the site's ledger is older than the one that the coordinator saw.
            SettingsError: FECG-103. FederationError: FECG-541.
        """
        study = parse_settings(StudySettings, task.settings)
        self._of_an_allowed_study(study.name)
        self._has_few_enough_steps(study)
        if not self._keeps_nothing():
            self._is_of_the_pinned_lock(task, study.name)
        self._is_of_an_allowed_phase(task)
        refuse_more_than_agreed(task, study)
        refuse_without_budget(self.site, study)
        refuse_plainer_sums(self.site, study)
        seen = task.ledger.get(self.site.name)
        refuse_if_behind(self.folder, seen.head() if seen else None)

    def admit_work(self, task: Task, key: str) -> None:
        """May the site work on it now? Replies that are done already may go at any time.

        Args:
            task: that `admit` has let in.
            key: of the task; a round that comes again counts once.

        Raises:
            PolicyError: FECG-418 hours; FECG-419 rounds a day.
            RunError: FECG-601 a set number of rounds cannot be counted on the disk.
        """
        start, end = (_minutes(time) for time in self.site.policy.hours.split("-"))
        now = self.now().hour * 60 + self.now().minute
        inside = start <= now < end if start <= end else (now >= start or now < end)
        if not inside:
            raise PolicyError(
                "FECG-418",
                "hours of the site",
                found=f"a task at {self.now():%H:%M}",
                expected=f"{self.site.policy.hours} local time (policy.hours)",
                fix="Wait for that time, or widen policy.hours in site.toml.",
            )
        limited = "rounds_a_day" in self.site.policy.model_fields_set
        if isinstance(task, COUNTED) and (limited or not self._keeps_nothing()):
            self._count_round(key, limited)

    def _keeps_nothing(self) -> bool:
        return ANY in self.site.policy.studies

    def _consents_unasked(self, lock: StudyLock) -> bool:
        """To the first lock of a study: the policy names its hash, or takes whatever comes first."""
        policy = self.site.policy
        return policy.consent == "first" or policy.locks.get(lock.study) == lock.sha256()

    def _of_an_allowed_study(self, name: str) -> None:
        allowed = self.site.policy.studies
        if name not in allowed and ANY not in allowed:
            raise PolicyError(
                "FECG-411",
                "study",
                found=f"{name!r:.80}",
                expected=f"one of {', '.join(allowed)} (policy.studies)"
                if allowed
                else "none: no policy.studies",
                fix="To take part, name it in [policy] studies of site.toml.",
            )

    def _is_acceptable(self, lock: StudyLock) -> None:
        """A lock by itself, whatever is pinned."""
        wanted = self.site.policy.locks.get(lock.study)
        if wanted is not None and wanted != lock.sha256():
            raise PolicyError(
                "FECG-412",
                f"lock of study {lock.study}",
                found=f"sha256 {lock.sha256()}",
                expected=f"{wanted} (policy.locks)",
                fix="Compare with the coordinator; if the study was meant to change, mend policy.locks in site.toml.",
            )
        if lock.sites and self.site.name not in lock.sites:
            raise PolicyError(
                "FECG-414",
                "sites of the study",
                found=f"{len(lock.sites)} names, {self.site.name} not among them",
                expected="the name that site.toml gives",
                fix="Ask the coordinator under which name this site was added, and set `name` in site.toml.",
            )
        if lock.code_fingerprint != code_fingerprint():
            raise FederationError(
                "FECG-541",
                "code of the study",
                found="another fingerprint than that of the installed fedecg",
                expected=f"{code_fingerprint()[:12]}... (installed here)",
                fix="Install the version that the coordinator runs.",
            )
        study = parse_settings(StudySettings, lock.settings)
        self._has_few_enough_steps(study)
        refuse_without_budget(self.site, study)
        refuse_plainer_sums(self.site, study)

    def _has_few_enough_steps(self, study: StudySettings) -> None:
        steps, most = (
            max(study.align.local_steps, study.survival.local_steps),
            self.site.policy.most_local_steps,
        )
        if steps > most:
            raise PolicyError(
                "FECG-415",
                "local-steps of the study",
                found=f"{steps} steps a round",
                expected=f"at most {most} (policy.most-local-steps)",
                fix="Raise policy.most-local-steps in site.toml if the site has the time for it.",
            )

    def _is_of_the_pinned_lock(self, task: Task, study: str) -> None:
        pinned = pinned_lock(self.folder, study)
        if pinned is None or pinned.sha256() != task.lock_sha256:
            raise PolicyError(
                "FECG-416",
                f"task of study {study}",
                found="a study that this site has not joined"
                if pinned is None
                else "another lock than the pinned one",
                expected="the lock that the site joined with",
                fix="The coordinator greets every site before it sends tasks; see what it says of this site.",
            )
        if _agreed(task) != _agreed(pinned):
            raise PolicyError(
                "FECG-416",
                f"task of study {study}",
                found="settings or a code bank that are not those of the lock",
                expected="what the site agreed to",
                fix="Tell the coordinator: no site should accept this task.",
            )
        self._is_acceptable(pinned)
        drop_proposed(self.folder, study)

    def _is_of_an_allowed_phase(self, task: Task) -> None:
        phases = self.site.policy.phases
        if isinstance(task, OF_MASKED_SUMS):  # part of the phases that they serve
            return
        if ALLOWED_BY.get(phase_of(task)) not in phases:
            raise PolicyError(
                "FECG-417",
                "phase of the study",
                found=phase_of(task),
                expected=f"one of {', '.join(phases)} (policy.phases)",
                fix="To take part in it, name the phase in policy.phases of site.toml.",
            )

    def _count_round(self, key: str, limited: bool) -> None:
        """Count a local round once, however often it is asked for; the count survives restarts."""
        today, most = f"{self.now():%Y-%m-%d}", self.site.policy.rounds_a_day
        file = made_state(self.folder) / ROUNDS
        rounds = _rounds_of(file, today)
        if key in rounds:
            return
        if len(rounds) >= most:
            raise PolicyError(
                "FECG-419",
                "local rounds of the day",
                found=f"{len(rounds)} and one more",
                expected=f"at most {most} (policy.rounds-a-day)",
                fix="The count starts anew at midnight; or raise policy.rounds-a-day in site.toml.",
            )
        try:
            write_whole(file, json.dumps({"day": today, "rounds": [*rounds, key]}))
        except RunError as error:
            if limited:  # a limit that somebody has set must not be lost to a full disk
                raise
            log.warning("the round is not counted: %s", error)


def _speaks_of_one_study(lock: StudyLock) -> None:
    """Its settings are sound and of the same name, and its summary is lines of text that can be read."""
    study = parse_settings(StudySettings, lock.settings)
    if study.name != lock.study or not all(line.isprintable() for line in lock.summary()):
        raise FederationError(
            "FECG-542",
            "lock of a study",
            found="a name that is not that of its settings, or words that do not print",
            expected="one study's name, sites and hashes",
            fix="Tell the coordinator.",
        )


def _nobody_agreed(lock: StudyLock, agreed: str | None) -> FederationError:
    name = lock.study
    return FederationError(
        "FECG-554",
        f"lock of study {name}",
        found=f"sha256 {lock.sha256()}",
        expected=f"{agreed}, which this site agreed to" if agreed else "one that this site has agreed to",
        fix="Read it (fedecg-client studies) and compare the hash with the coordinator's (fedecg-server lock); to take"
        f" part run `fedecg-client accept {name} {lock.sha256()}`: the site then joins within half a minute.",
    )


def _changed_lock(lock: StudyLock, pinned: StudyLock) -> PolicyError:
    name = lock.study
    return PolicyError(
        "FECG-413",
        f"lock of study {name}",
        found=f"sha256 {lock.sha256()}",
        expected=f"{pinned.sha256()}, which this site joined with (state/locks/{name}.json)",
        fix=f"Read state/locks/{name}.proposed.txt and compare the hash with the coordinator; to accept it run"
        f" `fedecg-client accept {name} {lock.sha256()}`, or remove state/locks/{name}.json.",
    )


def _agreed(of: Task | StudyLock) -> tuple[str, ...]:
    """What a task and the pinned lock must have in common."""
    return _hash_of(of.settings), of.bank_sha256, of.space_sha256, of.frequencies_sha256


def _hash_of(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _minutes(time: str) -> int:
    hours, minutes = time.split(":")
    return int(hours) * 60 + int(minutes)


def _rounds_of(file: Path, day: str) -> list[str]:
    """Keys of the rounds of a day; a file of another day, or one that cannot be read, has none."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        document = json.loads(file.read_text())
        if document["day"] == day:
            return [str(key) for key in document["rounds"]]
    return []
