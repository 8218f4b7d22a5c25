"""Federated and pooled evaluation: every figure from arrays and from additive sums.

In:  outcomes and risks of patients at a site (or of all patients, in a simulation).
Out: exact pair counts, intervals, sites' counts and their sum with guaranteed bounds, paired differences.
Called by training (best round), by the client (counts), by the server (sums) and by the comparison table.

    inputs       columns that cannot be ranked are refused
    concordance  exact pair counts in O(n log n), of all pairs, within strata, by patient
    intervals    standard error by the influence function, 95 % interval
    grid         public bins of time and risk
    cells        what binned counts tell of pairs
    counts       a site's counts, and their check by the coordinator
    bounds       all sites' counts -> stratified C, global C with bounds
    noised       noised histograms -> both C's with an interval that includes the noise; no bounds
    bootstrap    paired difference of two risks
    power        the smallest difference that so many events can show
    life_table, curves, log_rank          exits by risk group -> survival, follow-up, incidence, test
    censoring, brier, auc, uno            weights from a site's own censoring -> errors and ranks at horizons
    calibration, risk_calibration         observed and expected events, slope; predicted and observed risk
    heterogeneity                         random-effects summary over sites
    assessment                            all of it as one plan, one record of sums a site, one result
    plan, entry                           the plan from settings, the result as a document
"""

from fedecg.evaluation.assessment import (
    VERSION,
    Assessment,
    AssessmentPlan,
    SiteSums,
    absolute_risk,
    assess,
    check_site_sums,
    site_sums,
)
from fedecg.evaluation.bootstrap import PairedDifference, paired_bootstrap
from fedecg.evaluation.bounds import GlobalConcordance, global_concordance
from fedecg.evaluation.concordance import (
    Concordance,
    PairCounts,
    concordance,
    pair_counts,
    stratified_concordance,
)
from fedecg.evaluation.controls import age_sex_risk
from fedecg.evaluation.counts import SiteCounts, site_counts, validate_site_counts
from fedecg.evaluation.entry import assessment_entry
from fedecg.evaluation.grid import RiskTimeGrid, risk_grid, time_grid
from fedecg.evaluation.intervals import (
    FEW_EVENTS,
    Estimate,
    PairSquares,
    concordance_interval,
    stratified_interval,
)
from fedecg.evaluation.noised import NoisedConcordance, NoisedCounts, noised_concordance, noised_risk_cuts
from fedecg.evaluation.plan import DAYS_A_YEAR, assessment_plan
from fedecg.evaluation.power import DetectableDifference, detectable_difference

__all__ = [
    "DAYS_A_YEAR",
    "FEW_EVENTS",
    "VERSION",
    "Assessment",
    "AssessmentPlan",
    "Concordance",
    "DetectableDifference",
    "Estimate",
    "GlobalConcordance",
    "NoisedConcordance",
    "NoisedCounts",
    "PairCounts",
    "PairSquares",
    "PairedDifference",
    "RiskTimeGrid",
    "SiteCounts",
    "SiteSums",
    "absolute_risk",
    "age_sex_risk",
    "assess",
    "assessment_entry",
    "assessment_plan",
    "check_site_sums",
    "concordance",
    "concordance_interval",
    "detectable_difference",
    "global_concordance",
    "noised_concordance",
    "noised_risk_cuts",
    "pair_counts",
    "paired_bootstrap",
    "risk_grid",
    "site_counts",
    "site_sums",
    "stratified_concordance",
    "stratified_interval",
    "time_grid",
    "validate_site_counts",
]
