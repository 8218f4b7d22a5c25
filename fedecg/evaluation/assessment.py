"""The whole evaluation of a federation in one exchange: a public plan out, each site's sums back, all figures.

In:  `AssessmentPlan`, the same for every site; at a site its patients' outcomes and log hazards.
Out: `SiteSums`, every part of which adds up over sites; `Assessment`, every figure of the study's report.
Called by the site (`site_sums`) and by the coordinator (`assess`); pooled arrays are one site.

Sums are version `VERSION`: whoever changes what a field of any part means raises it, so that sums of different
versions are never added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedecg.errors import FederationError
from fedecg.evaluation.auc import AucSums, TimeDependentAuc, auc_sums, time_dependent_auc
from fedecg.evaluation.bounds import GlobalConcordance, global_concordance
from fedecg.evaluation.brier import Brier, BrierSums, brier, brier_sums
from fedecg.evaluation.calibration import (
    FARTHEST,
    HazardCalibration,
    HazardCalibrationSums,
    hazard_calibration,
    hazard_calibration_sums,
)
from fedecg.evaluation.censoring import MIN_AT_RISK, censoring_curve
from fedecg.evaluation.counts import SiteCounts, site_counts, validate_site_counts
from fedecg.evaluation.curves import (
    AtHorizons,
    IncidenceCurves,
    SurvivalCurves,
    aalen_johansen,
    kaplan_meier,
    reverse_kaplan_meier,
)
from fedecg.evaluation.decision import DecisionCurve, DecisionSums, decision_curve, decision_sums
from fedecg.evaluation.grid import RiskTimeGrid
from fedecg.evaluation.heterogeneity import RandomEffects, c_index_heterogeneity
from fedecg.evaluation.inputs import checked_outcomes
from fedecg.evaluation.life_table import LifeTable, life_table
from fedecg.evaluation.log_rank import LogRank, log_rank
from fedecg.evaluation.risk_calibration import (
    RiskCalibration,
    RiskCalibrationPlan,
    RiskCalibrationSums,
    risk_calibration,
    risk_calibration_sums,
)
from fedecg.evaluation.subgroups import Subgroup, SubgroupSums, subgroup_figures, subgroup_sums
from fedecg.evaluation.uno import UnoConcordance, UnoSums, uno_concordance, uno_sums
from fedecg.objectives import Baseline

__all__ = [
    "VERSION",
    "Assessment",
    "AssessmentPlan",
    "SiteSums",
    "absolute_risk",
    "assess",
    "check_site_sums",
    "site_sums",
]

VERSION: Literal[1] = 1  # of the sums

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AssessmentPlan:
    """What is public in an evaluation.

    Attributes:
        grid: cuts of time and risk for the concordances.
        edges_days: (B,) left edges of the life tables' bins, rising from 0; every horizon is one of them.
        group_cuts: cuts of the log hazard between the groups whose survival is shown.
        calibration_cuts: cuts of the log hazard between the groups of the calibration plot.
        horizons_days: (K,) rising; those of absolute risk, Brier score, AUC, calibration.
        tau_days: Uno's C counts events before it.
        centre: about the mean log hazard.
        subgroups: names of the subgroups, of which every patient is told to be a member or not.
        baseline: the model's, which turns a log hazard into an absolute risk.
        min_at_risk: a site with fewer patients followed beyond a horizon contributes nothing there.
    """

    grid: RiskTimeGrid
    edges_days: Float64
    group_cuts: Float64
    calibration_cuts: Float64
    horizons_days: Float64
    tau_days: float
    centre: float
    subgroups: tuple[str, ...]
    baseline: Baseline
    min_at_risk: int = MIN_AT_RISK


@dataclass(frozen=True, eq=False)
class SiteSums:
    """One site's evaluation; each part is documented where it is made, and adds up over sites.

    Attributes:
        concordance: exact pair counts, joint counts of time, risk and event.
        life: exits by risk group, time bin and cause.
        brier: weighted squared errors of the absolute risk at each horizon.
        auc: weighted cases and controls by risk bin at each horizon.
        uno: weighted events and comparators by time and risk bin.
        hazard: observed and expected events, moments for the calibration slope.
        risk: predicted and weighted observed cases by horizon and calibration group.
        decision: weighted cases and controls above each threshold, by horizon.
        subgroups: pairs, events and expected events of each subgroup.
        withheld: names of the parts that the site keeps to itself, since they would tell of too few patients: they are
            those of nobody, which says nothing.
    """

    concordance: SiteCounts
    life: LifeTable
    brier: BrierSums
    auc: AucSums
    uno: UnoSums
    hazard: HazardCalibrationSums
    risk: RiskCalibrationSums
    decision: DecisionSums
    subgroups: SubgroupSums
    withheld: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Assessment:
    """Every figure of an evaluation; what each holds is documented where it is made.

    Attributes:
        concordance: stratified and global C.
        sites: site name -> its own C with interval (pairs within the site).
        heterogeneity: random-effects summary of the sites' own C.
        survival: Kaplan-Meier by risk group, and the values at the horizons.
        log_rank, log_rank_by_site: test between the groups; stratified by site.
        incidence: Aalen-Johansen by risk group, and the values at the horizons.
        follow_up_days: median follow-up with its quartiles (3,), reverse Kaplan-Meier over all groups.
        brier, auc, uno, hazard_calibration, risk_calibration, decision: as their modules say.
        subgroups: name -> concordance and calibration.
        deaths: deaths before the event; 0 where none are known.
    """

    concordance: GlobalConcordance
    sites: Mapping[str, GlobalConcordance]
    heterogeneity: RandomEffects
    survival: SurvivalCurves
    survival_at_horizons: AtHorizons
    log_rank: LogRank
    log_rank_by_site: LogRank
    incidence: IncidenceCurves
    incidence_at_horizons: AtHorizons
    follow_up_days: Float64
    brier: Brier
    auc: TimeDependentAuc
    uno: UnoConcordance
    hazard_calibration: HazardCalibration
    risk_calibration: RiskCalibration
    decision: DecisionCurve
    subgroups: Mapping[str, Subgroup]
    deaths: int


def site_sums(
    time: ArrayLike,
    cause: ArrayLike,
    log_hazard: ArrayLike,
    members: NDArray[np.bool_],
    plan: AssessmentPlan,
) -> SiteSums:
    """Everything that a site tells of its evaluation; nobody at all is a site of zeros.

    For calibration, log hazards count as at most 60 away from the centre: what lies beyond is certain either way, and
    its moments would be too large to send. Nothing here knows of late entries: every patient counts from day 0.

    Args:
        time: (n,) days from the ECG to the event, the death or the last contact, > 0.
        cause: (n,) 0 = censored, 1 = event, 2 = death before it (which all but the life table count as censored).
        log_hazard: (n,) no unit; larger means earlier event.
        members: (n, S) bool, who belongs to which of the plan's subgroups.
        plan: the study's.

    Raises:
        CohortError, FederationError: as the parts, for columns or plans that cannot be used.
    """
    days, event, eta = checked_outcomes(time, np.asarray(cause) == 1, log_hazard)
    cumulative, bounded = (
        plan.baseline.at(days),
        np.clip(eta, plan.centre - FARTHEST, plan.centre + FARTHEST),
    )
    probability = absolute_risk(eta, plan.baseline, plan.horizons_days)
    calibration = RiskCalibrationPlan(plan.horizons_days, plan.calibration_cuts, plan.min_at_risk)
    return SiteSums(
        concordance=site_counts(days, event, eta, plan.grid),
        life=life_table(days, cause, eta, plan.edges_days, plan.group_cuts),
        brier=brier_sums(days, event, probability, plan.horizons_days, plan.min_at_risk),
        auc=auc_sums(days, event, eta, plan.horizons_days, plan.grid, plan.min_at_risk),
        uno=uno_sums(days, event, eta, plan.tau_days, plan.grid, plan.min_at_risk),
        hazard=hazard_calibration_sums(days, event, bounded, cumulative, plan.centre),
        risk=risk_calibration_sums(
            days, event, eta, probability, _case_weight(days, event, plan.horizons_days), calibration
        ),
        decision=decision_sums(days, event, probability, plan.horizons_days, plan.min_at_risk),
        subgroups=subgroup_sums(days, event, bounded, cumulative, plan.subgroups, members),
    )


def absolute_risk(log_hazard: Float64, baseline: Baseline, horizons_days: Float64) -> Float64:
    """Probability (n, K) of an event by each horizon: 1 - exp(-H0(horizon) exp(log hazard))."""
    # A log hazard beyond all bounds is a certain event, not an overflow.
    hazard = np.exp(np.minimum(log_hazard, 700.0))[:, None] * baseline.reached(horizons_days)
    return np.asarray(-np.expm1(-hazard))


def check_site_sums(sums: SiteSums, plan: AssessmentPlan, site: str, sites: int = 1) -> None:
    """Refuse sums that no set of patients has; for the coordinator, before anything is added up.

    Args:
        sums: as received, of the plan's shapes.
        plan: what the site was asked.
        site: its name, for the message.
        sites: of which these are the sums; more than one where sums are masked.

    Raises:
        FederationError: FECG-521..524 counts that contradict themselves; FECG-527 parts that contradict
            themselves or speak of other patients.
    """
    validate_site_counts(sums.concordance, plan.grid, site)
    patients, events = int(sums.concordance.cells.sum()), int(sums.concordance.cells[..., 1].sum())
    told = {
        "life table": (int(sums.life.exits.sum()), int(sums.life.exits[..., 1].sum()))
        in ((patients, events), (0, 0)),  # of nobody, where a site withholds it
        "calibration": (sums.hazard.patients, sums.hazard.events) == (patients, events)
        and _moments_can_be(sums.hazard.moments),
        "Brier score": _within(patients, events, sites, sums.brier)
        and _at_most(sums.brier.case_loss, sums.brier.case_weight)
        and _at_most(sums.brier.control_loss, sums.brier.control_weight)
        and _at_most(sums.brier.cases, sums.brier.case_weight)
        and _at_most(sums.brier.at_risk, sums.brier.control_weight),
        "AUC": _within(patients, events, sites, sums.auc)
        and _at_most(sums.auc.within_credit, sums.auc.within_pairs)
        and _at_most(
            sums.auc.own_pairs.sum(axis=1), sums.auc.case_weight.sum(1) * sums.auc.control_weight.sum(1)
        ),
        "Uno's C": sums.uno.patients <= patients
        and sums.uno.events <= events
        and sums.uno.sites <= sites
        and _at_most(sums.uno.within_credit, sums.uno.within_pairs),
        "risk groups": _at_most(sums.risk.patients.sum(axis=1), patients)
        and _at_most(sums.risk.predicted, sums.risk.patients),
        "decision curve": _at_most(sums.decision.treated_cases, sums.decision.case_weight[:, None])
        and _at_most(sums.decision.treated_controls, sums.decision.control_weight[:, None]),
        "subgroups": _at_most(sums.subgroups.patients, patients)
        and _at_most(sums.subgroups.events, np.minimum(sums.subgroups.patients, events)),
    }
    wrong = [part for part, agrees in told.items() if not agrees]
    if wrong:
        raise FederationError(
            "FECG-527",
            f"sums of {site}",
            found=f"{len(wrong)} part(s) that contradict themselves or the counts: {', '.join(wrong)}",
            expected="all parts from the same patients, each share at most its whole",
            fix="The site must run the same version of fedecg as the coordinator.",
        )


def assess(sites: Mapping[str, SiteSums], horizons_days: ArrayLike) -> Assessment:
    """Every figure from the sites' sums, added up in the order of site names.

    Args:
        sites: site name -> sums of one plan; at least one site.
        horizons_days: (K,) of that plan.

    Raises:
        FederationError: FECG-525 no site; FECG-531, FECG-536, FECG-538 sums of different plans.
    """
    ordered = [sites[name] for name in sorted(sites)]
    pooled = global_concordance([one.concordance for one in ordered])
    own = {name: global_concordance([sites[name].concordance]) for name in sorted(sites)}
    life: LifeTable = reduce(add, (one.life for one in ordered))
    survival, incidence = kaplan_meier(life), aalen_johansen(life)
    return Assessment(
        concordance=pooled,
        sites=own,
        heterogeneity=c_index_heterogeneity(
            [one.stratified for one in own.values()], [one.stratified_se for one in own.values()]
        ),
        survival=survival,
        survival_at_horizons=survival.at(horizons_days),
        log_rank=log_rank([life]),
        log_rank_by_site=log_rank([one.life for one in ordered]),
        incidence=incidence,
        incidence_at_horizons=incidence.at(horizons_days),
        follow_up_days=reverse_kaplan_meier(life.merged()).quantile_days([0.25, 0.5, 0.75])[0],
        brier=brier(reduce(add, (one.brier for one in ordered))),
        auc=time_dependent_auc(reduce(add, (one.auc for one in ordered))),
        uno=uno_concordance(reduce(add, (one.uno for one in ordered))),
        hazard_calibration=hazard_calibration(reduce(add, (one.hazard for one in ordered))),
        risk_calibration=risk_calibration(reduce(add, (one.risk for one in ordered))),
        decision=decision_curve(reduce(add, (one.decision for one in ordered))),
        subgroups=subgroup_figures(reduce(add, (one.subgroups for one in ordered))),
        deaths=int(life.exits[..., 2].sum()),
    )


def _within(patients: int, events: int, sites: int, part: BrierSums | AucSums) -> bool:
    """At most so many sites, their patients and their events."""
    return bool(
        (part.sites <= sites).all() and (part.patients <= patients).all() and (part.cases <= events).all()
    )


def _at_most(share: ArrayLike, whole: ArrayLike) -> bool:
    """Share by share, but for rounding."""
    limit = np.asarray(whole, dtype=np.float64)
    return bool(np.all(np.asarray(share) <= limit + 1e-9 * np.abs(limit) + 1e-9))


def _moments_can_be(moments: Float64) -> bool:
    """(nodes, 3): M0, M2 >= 0 and M1^2 <= M0 M2, as of any weights."""
    total, first, second = moments.T
    return bool((total >= 0).all() and (second >= 0).all()) and _at_most(first**2, total * second)


def _case_weight(time: Float64, event: NDArray[np.bool_], horizons_days: Float64) -> Float64:
    """(n, K): 1 / G(time-) of an event by the horizon, else 0; G is the site's own curve of censoring."""
    uncensored = censoring_curve(time, event).at(np.nextafter(time, -np.inf))
    weight = np.divide(1.0, uncensored, out=np.zeros_like(uncensored), where=event)
    return weight[:, None] * (time[:, None] <= horizons_days)
