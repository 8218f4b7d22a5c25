"""The evaluation's sums as documents: what arrives is what was sent, small enough, and refused where it cannot be."""

import json
from dataclasses import fields

import numpy as np
import pytest

from fedecg.errors import FederationError
from fedecg.evaluation import AssessmentPlan, RiskTimeGrid, risk_grid, site_sums
from fedecg.federation.messages import pack, unpack
from fedecg.federation.sums import AssessReply, PlanDocument
from fedecg.objectives import Baseline, public_grid

HORIZONS = np.array([1.0, 3.0, 5.0, 10.0]) * 365.25


def plan():
    return AssessmentPlan(
        grid=RiskTimeGrid(np.linspace(100, 3900, 23), risk_grid(0, 1, 50)),
        edges_days=np.union1d(public_grid(30.0, 7305.0), HORIZONS),
        group_cuts=risk_grid(0, 1, 3),
        calibration_cuts=risk_grid(0, 1, 10),
        horizons_days=HORIZONS,
        tau_days=1826.25,
        centre=0.25,
        subgroups=("all", "odd"),
        baseline=Baseline(np.array([0.0, 900.0]), np.array([0.01, 0.05])),
    )


def members(eta):
    return np.stack([np.ones(len(eta), dtype=bool), eta > 0], axis=1)


def sums(patients, seed=0):
    rng = np.random.default_rng(seed)
    eta = rng.normal(size=patients)
    event, censored = rng.exponential(9000 * np.exp(-eta)), rng.uniform(100, 4500, patients)
    return site_sums(np.minimum(event, censored), (event <= censored).astype(int), eta, members(eta), plan())


def assert_same(one, other):
    assert one.withheld == other.withheld
    for part in fields(one):
        if part.name == "withheld":
            continue
        for field in fields(getattr(one, part.name)):
            left, right = (getattr(getattr(x, part.name), field.name) for x in (one, other))
            if part.name == "concordance" and field.name == "pairs":
                assert left == right
            else:
                np.testing.assert_array_equal(left, right)
                assert np.asarray(left).dtype == np.asarray(right).dtype


@pytest.mark.parametrize("patients", [0, 1, 300])
def test_sums_survive_the_wire_bit_for_bit(patients):
    sent = sums(patients)
    content = pack(AssessReply.of("city", sent))
    reply, _ = unpack(content, AssessReply)
    assert_same(reply.sums(plan()), sent)


def test_a_plan_survives_the_wire():
    asked = PlanDocument.of(plan())
    back = PlanDocument.of(PlanDocument.model_validate_json(asked.model_dump_json(by_alias=True)).plan())
    assert back == asked


def test_a_site_of_50_000_patients_sends_at_most_256_kb():
    text = AssessReply.of("city", sums(50_000)).model_dump_json(by_alias=True)
    assert len(text.encode()) <= 256 * 1024


@pytest.mark.parametrize(
    ("array", "change", "found"),
    [
        ("brier.case_loss", lambda column: [-1.0, *column[1:]], "4 numbers, 1 of them impossible"),
        ("auc.case_weight", lambda column: column[:-1], "199 numbers, 0 of them impossible"),
        ("uno.patients", lambda _: [0.5], "1 numbers, 1 of them impossible"),
        ("risk.patients", lambda column: [*column[:-1], 0.25], "40 numbers, 1 of them impossible"),
    ],
)
def test_an_array_that_cannot_be_is_refused_by_name(array, change, found):
    reply = AssessReply.of("city", sums(50))
    spoilt = reply.model_copy(update={"arrays": {**reply.arrays, array: change(reply.arrays[array])}})
    with pytest.raises(FederationError, match=rf"FECG-503 {array} of a reply: found {found}; expected"):
        spoilt.sums(plan())


def test_missing_and_unknown_arrays_are_counted():
    reply = AssessReply.of("city", sums(50))
    arrays = {("more" if name == "uno.events" else name): column for name, column in reply.arrays.items()}
    with pytest.raises(
        FederationError, match="FECG-503 sums of a reply: found 2 arrays that are missing or unknown"
    ):
        reply.model_copy(update={"arrays": arrays}).sums(plan())


@pytest.mark.parametrize("change", [{"version": 2}, {"arrays": {"uno.events": [float("inf")]}}])
def test_another_version_and_numbers_that_are_not_finite_are_no_message(change):
    tree = json.loads(AssessReply.of("city", sums(5)).model_dump_json(by_alias=True)) | change
    content = pack(AssessReply.of("city", sums(5)))
    content["document"]["json"] = json.dumps(tree)
    with pytest.raises(FederationError, match="FECG-501 AssessReply message"):
        unpack(content, AssessReply)
