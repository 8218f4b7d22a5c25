"""Exchanges without training: survey, evaluation, sums. Who fails is warned of and left out.

In:  the consortium, a task, weights. Out: checked replies by site name. Called by the study and its conclusion.
What all sites have answered is kept (`concluded`), so that a coordinator that was killed does not ask again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
from flwr.app import Message, MessageType
from numpy.typing import NDArray

from fedecg.config import Section, StudySettings
from fedecg.errors import FederationError
from fedecg.evaluation import GlobalConcordance
from fedecg.explanation.documents import ExplainReply
from fedecg.federation.baselines import BaselinesReply
from fedecg.federation.documents import ALL, JoinedPart, Part, PartCounts
from fedecg.federation.hazard import HazardState, check_survey, federated_concordance
from fedecg.federation.messages import pack, read_reply
from fedecg.federation.noised import NoisedEvaluateReply, NoisedSurveyReply
from fedecg.federation.noised import check_survey as check_noised_survey
from fedecg.federation.sums import AssessReply
from fedecg.federation.tasks import EvaluateReply, EvaluateTask, SurveyReply, SurveyTask, Task
from fedecg.progress import Progress
from fedecg_server.concluded import NOTHING, Concluded, key_of
from fedecg_server.consortium import Consortium
from fedecg_server.exchange import COMES_BACK, Gathered
from fedecg_server.masked import MaskedSums
from fedecg_server.shelf import Shelved

__all__ = ["Questions", "concordance_of"]

Vector = NDArray[np.float32] | Shelved  # read when it is sent
Parts = dict[str, dict[JoinedPart, PartCounts]]
Reply = TypeVar(
    "Reply",
    SurveyReply,
    EvaluateReply,
    AssessReply,
    ExplainReply,
    BaselinesReply,
    NoisedSurveyReply,
    NoisedEvaluateReply,
)
Surveyed = dict[str, SurveyReply] | dict[str, NoisedSurveyReply]
Sums = TypeVar("Sums")
NO_ANSWER = "no answer"


@dataclass
class Questions:
    """What the study asks its sites besides training.

    Args:
        settings: the study.
        consortium: its sites.
        progress: warns of who failed.
        parts: what the sites that were surveyed joined with; only they are asked further.
        concluded: what they have answered already.
        masked: adds up what they answer so that nobody sees one answer; None: plain sums.
    """

    settings: StudySettings
    consortium: Consortium
    progress: Progress
    parts: Parts = field(default_factory=dict)
    concluded: Concluded = NOTHING
    masked: MaskedSums | None = None
    answered: list[str] = field(default_factory=list)  # sites of the last masked sum

    def survey(self, vector: Vector, repeat: int = 0) -> Surveyed:
        """Events and sums on the public grid, under given weights; noised ones under differential privacy.

        Raises:
            FederationError: FECG-507 fewer usable replies than the quorum.
        """
        task = SurveyTask(**self.consortium.task_fields("survival", 0) | {"repeat": repeat})
        if self.masked is not None:
            return self._ask_all(self.masked, "query.survey", task, vector, SurveyReply, self._check_survey)
        if not repeat:
            members = self.consortium.members
            self.parts = {site: dict(member.joined.parts) for site, member in members.items()}
        replies: Surveyed
        if self._private:
            check_noised = partial(check_noised_survey, self.settings)
            replies = self.ask("query.survey", task, vector, NoisedSurveyReply, check_noised)
        else:
            check = partial(check_survey, self.settings, self.parts)
            replies = self.ask("query.survey", task, vector, SurveyReply, check)
        if not repeat:
            self.parts = {site: self.parts[site] for site in replies}
            for site in self.consortium.expected():  # who should have been there, and was not
                if site not in replies:
                    self.consortium.refused.setdefault(site, NO_ANSWER)
        return replies

    @property
    def _private(self) -> bool:
        return self.settings.privacy.mode == "sample"

    def survey_newcomers(self, known: Mapping[str, object], vector: Vector) -> Surveyed:
        """The same of sites that were away then; whoever does not answer within `grace-s` is asked in the next round.

        Args:
            known: sites that were surveyed.
            vector: weights of the present round.
        """
        if self.masked is not None:  # its key is not among those of the run
            return {}
        members, refused, away = self.consortium.members, self.consortium.refused, {NO_ANSWER, *COMES_BACK}
        newcomers = [
            site
            for site in sorted(set(members) - set(known))
            if refused.get(site, NO_ANSWER) in away  # a survey that was rejected stays so
        ]
        if not newcomers:
            return {}
        task = SurveyTask(**self.consortium.task_fields("survival", 0))
        parts = {site: dict(members[site].joined.parts) for site in newcomers}
        read: Callable[[str, Message], Any] = (
            self._reader(NoisedSurveyReply, partial(check_noised_survey, self.settings))
            if self._private
            else self._reader(SurveyReply, partial(check_survey, self.settings, parts))
        )
        grace_s = self.settings.federation.grace_s
        gathered: Gathered[Any] = self.consortium.ask(
            "query.survey", lambda: pack(task, np.asarray(vector)), read, newcomers, grace_s
        )
        for site in gathered.replies:
            self.progress.say(f"{site} takes part from now on")
            refused.pop(site, None)
            self.parts[site] = parts[site]
        return gathered.replies

    def evaluate(
        self, hazard: HazardState, vector: Vector, parts: list[Part], rounds: int | None = None
    ) -> dict[str, EvaluateReply]:
        """Counts of concordance on some parts, and the sums of the shipped baseline.

        Args:
            hazard: grids and baseline.
            vector: the weights.
            parts: validation, test.
            rounds: of survival after which the weights stood so; None: all.

        Raises:
            FederationError: FECG-507 fewer usable replies than the quorum.
        """
        task = EvaluateTask(
            **self.consortium.task_fields(
                "survival", self.settings.survival.rounds if rounds is None else rounds
            ),
            grid=hazard.grid_document,
            edges_days=hazard.shipped_edges_days.tolist(),
            parts=parts,
        )
        check = partial(hazard.check_evaluation, parts)
        if self.masked is not None:
            return self._ask_all(
                self.masked, MessageType.EVALUATE, task, vector, EvaluateReply, check, hazard
            )
        return self.ask(MessageType.EVALUATE, task, vector, EvaluateReply, check)

    def sums(
        self,
        question: str,
        task: Task,
        vector: Vector,
        reply: type[Reply],
        checked: Callable[[str, Reply], Sums],
    ) -> dict[str, Sums]:
        """One more exchange of sums. The model is safe by now: sites that cannot answer cost figures, not the study."""
        sums: dict[str, Sums] = {}
        self.consortium.journal.enter(question)

        def check(site: str, document: Reply) -> None:
            sums[site] = checked(site, document)

        try:
            self.ask(f"query.{question}", task, vector, reply, check)
        except FederationError as error:
            self.progress.warn(f"no answers to {question}: {error}")
            return {}
        return sums

    def ask(
        self,
        kind: str,
        task: Task,
        vector: Vector,
        reply: type[Reply],
        check: Callable[[str, Reply], None],
    ) -> dict[str, Reply]:
        """One exchange with the sites that are, or were, surveyed; or what came of it before the run was resumed.

        Raises:
            FederationError: FECG-507 fewer usable replies than the quorum, with the codes of those left out.
        """
        if self.masked is not None:
            return self._ask_all(self.masked, kind, task, vector, reply, check)
        key = key_of(kind, task, vector)
        kept = self._kept(key, reply, check)
        if kept is not None:
            return kept
        gathered = self.consortium.ask(
            kind, lambda: pack(task, np.asarray(vector)), self._reader(reply, check), self.parts
        )
        failed = _failed(gathered)
        for site, code in failed.items():
            self.progress.warn(f"{kind}: {site} left out ({code})")
            self.consortium.refused[site] = code
        if len(gathered.replies) < self.settings.federation.quorum:
            raise FederationError(
                "FECG-507",
                kind,
                found=f"{len(gathered.replies)} usable replies",
                expected=f"at least {self.settings.federation.quorum} (federation.quorum)",
                fix=f"Left out: {', '.join(f'{site} ({code})' for site, code in failed.items())}.",
            )
        self._keep(key, gathered.replies, failed)
        return gathered.replies

    def _ask_all(
        self,
        masked: MaskedSums,
        kind: str,
        task: Task,
        vector: Vector,
        reply: type[Reply],
        check: Callable[[str, Reply], None],
        hazard: HazardState | None = None,
    ) -> dict[str, Reply]:
        """The same of all sites together, as if one site had answered; not kept: it is asked anew after a crash."""
        opened = masked.ask(kind, task, np.asarray(vector), reply)
        self.parts, self.answered = {ALL: opened.parts}, sorted(opened.gathered.replies)
        if hazard is not None:
            hazard.tell_all(opened.parts)
        for site, code in _failed(opened.gathered).items():
            self.progress.warn(f"{kind}: {site} left out ({code})")
            self.consortium.refused[site] = code
        check(ALL, opened.reply)
        return {ALL: opened.reply}

    def _check_survey(self, site: str, reply: SurveyReply) -> None:
        check_survey(self.settings, self.parts, site, reply)

    def _kept(
        self, key: str, kind: type[Reply], check: Callable[[str, Reply], None]
    ) -> dict[str, Reply] | None:
        answers = self.concluded.answers(key)
        if answers is None or not set(answers.replies) <= set(self.consortium.members):
            return None  # a site that is not back yet: what it joined with is not known
        replies = {site: kind.model_validate_json(text) for site, text in sorted(answers.replies.items())}
        for site, document in replies.items():
            check(site, document)
        self.consortium.refused.update(answers.failed)
        self.consortium.received = self.consortium.accepted = answers.received
        return replies

    def _keep(self, key: str, replies: Mapping[str, Section], failed: Mapping[str, str]) -> None:
        if self.concluded.keep_answers(key, replies, failed, self.consortium.received):
            self.consortium.accepted = self.consortium.received

    def _reader(
        self, kind: type[Reply], check: Callable[[str, Reply], None]
    ) -> Callable[[str, Message], Reply]:
        def read(site: str, message: Message) -> Reply:
            document, _ = read_reply(message, kind)
            if document.site != site:
                raise FederationError(
                    "FECG-509", "reply", found="another site's name", expected="the one it joined with"
                )
            check(site, document)
            return document

        return read


def concordance_of(
    replies: Mapping[str, EvaluateReply], part: Part, hazard: HazardState
) -> GlobalConcordance:
    """Stratified and global C of one part."""
    counts = {site: reply.counts[part] for site, reply in replies.items() if part in reply.counts}
    return federated_concordance(counts, hazard.grid)


def _failed(gathered: Gathered[Any]) -> dict[str, str]:
    absent = [site for site in gathered.expected if site not in gathered.replies | gathered.rejected]
    return dict(sorted((gathered.rejected | dict.fromkeys(absent, NO_ANSWER)).items()))
