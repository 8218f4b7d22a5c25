"""What leaves a site in a study, and what protects it, in the words of the lock that people agree to.

In:  the study's settings, fingerprints of the sites' keys. Out: lines. Called by `lock` for its summary. The accountant
     is loaded where such a study is described: a lock by itself needs neither it nor scipy.
"""

from __future__ import annotations

from collections.abc import Mapping

from fedecg.config import StudySettings

__all__ = ["how_protected", "what_leaves"]


def what_leaves(study: StudySettings) -> list[str]:
    """How the model is judged, and what leaves a site for that and for training."""
    if study.privacy.mode == "sample":
        return _noised(study)
    evaluation = ["concordance, calibration, curves and subgroups from sums"]
    if study.evaluation.explain:
        evaluation.append(f"tests of attention on at most {study.evaluation.explain_ecgs} ECGs")
        if study.evaluation.explain_seeds:
            evaluation.append(f"for them it trains again, {study.evaluation.explain_seeds} times")
    if study.evaluation.baselines:
        evaluation.append("a model that the site trains alone, of which only counts leave")
    return [
        f"Evaluation: {'; '.join(evaluation)}",
        "Leaves the site: weights of the network after each round; counts and sums over patients"
        f" (privacy.sums = {study.privacy.sums}); no ECG, no report, no row of a table",
    ]


def how_protected(study: StudySettings, site_keys: Mapping[str, str]) -> list[str]:
    """Noise, clips and masks: what is done where, and what it does not cover.

    Args:
        site_keys: name -> fingerprint; people compare them like the hash.
    """
    lines = []
    if study.privacy.mode == "sample":
        lines.append(_of_patients(study))
    if study.privacy.mode == "client":
        lines.append(_of_sites(study))
    if study.privacy.sums == "masked":
        lines += _masks(study, site_keys)
    return lines


def _noised(study: StudySettings) -> list[str]:
    privacy = study.privacy
    return [
        "Evaluation: concordance from histograms with noise, two of validation patients and one of test patients",
        "Leaves the site: weights of the network after rounds of noised steps; with noise, events by time bin once,"
        f" sums of hazards by time bin every {privacy.hazard_every} rounds, and those histograms (privacy.sums ="
        " noised); no count, no loss, no ECG, no report, no row of a table",
    ]


def _of_patients(study: StudySettings) -> str:
    """What epsilon and delta of a site's own site.toml are spent on."""
    from fedecg.privacy.accountant import Plan

    privacy, plan = study.privacy, Plan.of(study)
    return (
        f"Differential privacy of patients: in each of {plan.steps} steps a patient takes part with a chance of "
        f"{privacy.sampling_rate:g}, with one record, clipped to a norm of {privacy.clip:g}; this site chooses the "
        "noise, from epsilon and delta of its own site.toml, and its ledger counts them over all studies. The whole "
        "of what a patient has left is planned for this study. Not covered: how long a round takes, codes of refusals"
    )


def _of_sites(study: StudySettings) -> str:
    from fedecg.federation.site_noise import noise_of_sites

    privacy = study.privacy
    return (
        f"Differential privacy of sites: this site's update is clipped to a norm of {privacy.client_clip:g} before it "
        f"leaves; the coordinator adds noise of {noise_of_sites(study):.3g} x that to the sum of all. It does not "
        "protect single patients, nor sums and counts, nor anything from the coordinator, who adds the noise"
    )


def _masks(study: StudySettings, site_keys: Mapping[str, str]) -> list[str]:
    keys = ", ".join(f"{name} {fingerprint}" for name, fingerprint in site_keys.items())
    return [
        "Masks: of all numbers only the sum over the sites that answer is opened; no update changes a weight by"
        f" more than {study.privacy.masked_bound:g}; keys of the sites: {keys or 'as they come'}",
        "Small numbers: thresholds of site.toml are for plain sums, where a site sees what it sends; here none is held"
        " to one, and a total may be of few patients. When a site misses an exchange, totals before and after"
        " tell its own numbers of patients and events",
    ]
