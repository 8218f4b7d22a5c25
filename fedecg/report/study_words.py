"""Sentences on a study's data, training, evaluation and limits, the same in the model card and in the checklists.

In:  `Study`: summary, assessment, settings, hashes of the model. Out: sentences. Called by `model_card` and `tripod`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedecg.config import StudySettings, SurvivalSettings
from fedecg.report.assessment import Assessment, ratio_line, slope_line, with_deaths
from fedecg.report.disclosure import Thresholds, thresholds_of
from fedecg.report.findings import Summary, endpoint, is_simulated
from fedecg.report.sites import SiteDisclosure, of_study, withheld_words
from fedecg.report.wording import DAYS_A_YEAR, byte_size, c_index, count, is_known, printable, years

__all__ = [
    "Study",
    "chosen_words",
    "concordance_line",
    "data_lines",
    "evaluation_part_lines",
    "limit_lines",
    "outcome_line",
    "part_line",
    "preparation_line",
    "refused_text",
    "training_lines",
]

LOSSES = {
    "cox-batch": "partial likelihood inside each mini-batch, {ties} ties",
    "cox-site": "partial likelihood inside each site (a stratified Cox model), {ties} ties",
    "cox-pooled": "the pooled Cox model from sums of the sites, {baseline} baseline hazard, Breslow ties in time bins",
    "grouped": "discrete-time proportional hazards (complementary log-log)",
}
PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Study:
    """What the words are about.

    Attributes:
        summary: as in summary.json; what a run does not have is null.
        assessment: as in assessment.json; None for a run that has none.
        settings: of the study.
        model: model.json; what it lacks is not told.
    """

    summary: Summary
    assessment: Assessment | None
    settings: StudySettings
    model: Mapping[str, Any]

    @property
    def thresholds(self) -> Thresholds:
        """Of disclosure control."""
        return thresholds_of(self.summary)

    @property
    def disclosure(self) -> SiteDisclosure:
        """What is withheld of which site; the same as in the report."""
        return of_study(self.summary, self.assessment)


def refused_text(study: Study) -> str:
    """How many recordings were refused: a coordinator need not know it."""
    refused = study.summary.get("refused-recordings")
    if refused is None:
        return "the number of recordings refused at the sites is not stated"
    return f"{count(sum(refused.values()))} recordings refused"


def data_lines(study: Study) -> tuple[str, ...]:
    """Sites, patients, events, parts, outcomes."""
    sites = study.summary.get("sites") or []
    patients, events = (_sum(sites, name) for name in ("patients", "events"))
    refused = sum((study.summary.get("refused-recordings") or {}).values())
    lines = [
        f"{count(len(sites))} sites, {count(patients)} patients, {count(events)} events; one index ECG a patient.",
        outcome_line(study),
        part_line(study),
    ]
    return (*lines, f"{count(refused)} recordings were refused and left out.") if refused else tuple(lines)


def outcome_line(study: Study) -> str:
    """Whether outcomes were observed."""
    if not is_simulated(study.summary):
        return (
            f"Outcomes were observed: time from the index ECG to {endpoint(study.summary)} or last contact."
        )
    if study.summary.get("outcomes") is None:
        return "The run does not state that outcomes were observed, so they count as SIMULATED."
    return (
        "Outcomes are SIMULATED by a stated hazard: the model learned a formula, not what happens to patients, and "
        "no figure here says how well heart failure can be predicted."
    )


def part_line(study: Study) -> str:
    """Patients and events of each part; split by patient."""
    told = []
    for part in PARTS:
        counts = [(site.get("parts") or {}).get(part) or {} for site in study.summary.get("sites") or []]
        if any(counts):
            told.append(
                f"{part} {count(_sum(counts, 'patients'))} patients ({count(_sum(counts, 'events'))} events)"
            )
    aligning = [(site.get("parts") or {}).get("align") or {} for site in study.summary.get("sites") or []]
    if any(aligning):
        told.append(
            f"align {count(_sum(aligning, 'patients'))} ECGs without a known outcome, for alignment alone"
        )
    return f"Parts, split by patient: {'; '.join(told) or 'not stated'}."


def preparation_line(study: Study) -> str:
    """From recording to the network's input."""
    signals = study.settings.signals
    notch = "no powerline notch" if signals.powerline == "none" else f"a {signals.powerline} Hz notch"
    beat = (
        "the median of the beats (0.4 s before to 0.8 s after the R peak), "
        if signals.input == "median"
        else ""
    )
    return (
        f"Leads in a fixed order in mV, resampled to {signals.rate_hz} Hz, band-pass {signals.highpass_hz:g} to "
        f"{signals.lowpass_hz:g} Hz, {notch}, {beat}cut or padded to {signals.samples} samples "
        f"({signals.samples / signals.rate_hz:.4g} s)."
    )


def training_lines(study: Study) -> tuple[str, ...]:
    """Two stages, rounds, losses, aggregation."""
    settings, rounds = study.settings, study.summary.get("rounds") or {}
    survival, align = settings.survival, settings.align
    loss = LOSSES[survival.loss].format(ties=survival.ties.title(), baseline=survival.baseline)
    return (
        f"Network: dual attention, over time and leads; preset {settings.model.preset}, size {settings.model.size}.",
        f"Stage 1, alignment: {count(rounds.get('align'))} rounds{_public(settings)}, "
        f"loss {align.loss}, ECG embeddings pulled to the embedded statements of their reports or codes.",
        f"Stage 2, survival: {count(rounds.get('survival'))} rounds, loss {survival.loss}: {loss}. "
        f"{chosen_words(study)}{_schedule(survival)}",
        f"Federation: {settings.federation.algorithm}, {survival.local_steps} local steps a round; "
        f"{byte_size(study.summary.get('bytes-per-round'))} up and down per site and survival round. No ECG and no "
        "patient's row left a site.",
    )


def chosen_words(study: Study) -> str:
    """Which round's weights these are, and why."""
    number = count(study.summary.get("best-round"))
    if study.settings.validation_chooses:
        return f"Round {number} gave the weights, by stratified C on the validation part."
    why = {
        "sample": "with differential privacy of patients no round is validated",
        "client": "the choice would be a release without noise",
        "none": "other sites took part in every round, so that their scores cannot be compared",
    }[study.settings.privacy.mode]
    return f"The weights are those after round {number}, the last, and validation chose none: {why}."


def _public(settings: StudySettings) -> str:
    """Where alignment learned from nobody's patients."""
    public = settings.data.public_patients
    return f" on {public:,} public ECGs, before the study, and on no site's" if public else ""


def _schedule(survival: SurvivalSettings) -> str:
    """How the aligned encoder was tuned, where not as a part like any other."""
    words = []
    if survival.freeze_rounds:
        words.append(f"the encoder stayed as it was in the first {survival.freeze_rounds} rounds")
    if survival.encoder_rate != 1:
        words.append(f"the encoder learned at {survival.encoder_rate:g} of the learning rate")
    if survival.layer_decay != 1:
        words.append(
            f"every level of the encoder learned at {survival.layer_decay:g} of the rate of the level above it"
        )
    if survival.alignment:
        words.append(f"the alignment loss was kept with weight {survival.alignment:g}")
    sentence = "; ".join(words)
    return f" {sentence[0].upper()}{sentence[1:]}." if words else ""


def concordance_line(study: Study) -> str:
    """Both C-indices with intervals, and whether events are few."""
    noised = study.summary.get("federated-c-index") or {}
    if study.assessment is None and noised.get("noised"):
        within = c_index(noised["stratified"], noised["stratified-ci-low"], noised["stratified-ci-high"])
        whole = c_index(noised["global"], noised["ci-low"], noised["ci-high"])
        return (
            f"C-index from noised histograms of the test part: of pairs within sites {within}; of all pairs {whole}. "
            "The intervals include the noise; nothing is guaranteed, and no number without noise left a site."
        )
    if study.assessment is None:
        kept_back = study.summary.get("withheld-by")
        return (
            f"Not evaluated: {withheld_words(kept_back)}."
            if kept_back
            else "The run has no final evaluation."
        )
    pairs = study.assessment["concordance"]
    within = c_index(pairs["stratified"], pairs["stratified-ci-low"], pairs["stratified-ci-high"])
    whole = c_index(pairs["c-index"], pairs["ci-low"], pairs["ci-high"])
    few = " Too few events: the intervals are narrower than they should be." if pairs["few-events"] else ""
    return (
        f"C-index of pairs within sites {within}; of all pairs {whole}, guaranteed to lie in "
        f"{c_index(pairs['lower'])}–{c_index(pairs['upper'])} ({count(pairs['patients'])} patients, "
        f"{count(pairs['events'])} events of the {study.assessment['part']} part).{few}"
    )


def evaluation_part_lines(study: Study) -> tuple[str, ...]:
    """Discrimination and calibration without a horizon, a line each."""
    if study.assessment is None:
        return (concordance_line(study),)
    lines = (concordance_line(study), ratio_line(study.assessment), slope_line(study.assessment))
    return (*lines[:-1], with_deaths(study.assessment, lines[-1]))


def limit_lines(study: Study) -> tuple[str, ...]:
    """What the figures do not say."""
    lines = ["Research software, not a medical device. It may not guide the care of a patient."]
    if is_simulated(study.summary):
        lines.append("Outcomes are SIMULATED: the model has never seen what became of a patient.")
    lines += [
        "Evaluated at the sites that trained it, on patients held out: another hospital's patients, devices and coding "
        "may differ. The command fedecg evaluate says how it does there.",
        "One split and one seed: another seed gives other weights and other figures.",
        "Absolute risks use one baseline hazard for all sites; where sites differ they are wrong in the large until "
        "recalibrated.",
        "Death from other causes is treated as censoring in all but the cumulative incidence: risks are as if nobody "
        "died of other causes.",
        f"Risks are known up to {_last_horizon(study)} years at most; no figure stands behind a longer horizon.",
    ]
    status = study.summary.get("status", "completed")
    if status != "completed":
        lines.append(f"Not every site's reply was used in every round (status {printable(status)}).")
    return tuple(lines)


def _last_horizon(study: Study) -> str:
    if study.assessment is None:
        return years(max(study.settings.evaluation.horizons_years) * DAYS_A_YEAR)
    brier = study.assessment["brier"]["sites"]
    known = [days for days, sites in zip(study.assessment["horizons-days"], brier, strict=True) if sites]
    return years(known[-1]) if known else "0"


def _sum(rows: Any, name: str) -> float | None:
    values = [row.get(name) for row in rows if is_known(row.get(name))]
    return sum(values) if values else None
