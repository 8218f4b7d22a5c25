"""What sites and coordinator exchange: rounds and waits, protection of what leaves, figures of the evaluation.

In:  sections `federation`, `privacy`, `evaluation` of a study. Out: frozen models.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedecg.config.section import Count, NonNegative, Positive, Section

__all__ = ["MOST_REPEATS", "EvaluationSettings", "FederationSettings", "PrivacySettings", "Transfer"]

Transfer = Literal["float32", "float16", "bfloat16"]
Algorithm = Literal[
    "fedavg", "fedprox", "fedadam", "fedyogi", "scaffold", "fedbn", "median", "trimmed-mean", "krum"
]


class FederationSettings(Section):
    """Rounds: who must answer, for how long to wait, how updates are added up."""

    algorithm: Algorithm = "fedavg"
    proximal_mu: NonNegative = 0.0  # fedprox: weight of the pull to the round's first weights
    server_rate: Positive = 0.01  # fedadam, fedyogi: step of the server
    beta_1: Annotated[float, Field(ge=0, lt=1)] = 0.9  # fedadam, fedyogi: memory of the sites' moves
    beta_2: Annotated[float, Field(ge=0, lt=1)] = 0.99  # fedadam, fedyogi: memory of their squares
    tau: Positive = 1e-3  # fedadam, fedyogi: added to the root of the squares; small = more adaptive
    hostile_sites: Count = 1  # trimmed-mean, krum: as many sites as may lie without harm
    finetune_rounds: Annotated[int, Field(ge=0)] = (
        0  # simulations: each site goes on alone from the final model; a column of the comparison
    )
    transfer: Transfer = "float32"  # how a site sends its update; 16 bits halve it and round it
    weight: Literal["auto", "patients", "events"] = (
        "auto"  # auto: patients for sum losses, events for cox-batch, cox-site
    )
    fraction: Annotated[float, Field(gt=0, le=1)] = (
        1.0  # of the sites that take part in a training round, at least the quorum; drawn anew for each from the seed
    )
    quorum: Count = 1  # fewest sites whose replies make a round
    deadline_s: Positive = 3600.0  # longest wait for the replies of one exchange
    grace_s: Positive = (
        30.0  # longest wait for the rest beyond their usual time, once the quorum has answered
    )
    patience_s: NonNegative = 3600.0  # below the quorum: longest wait for sites to come back, in one exchange
    backend: Literal["in-process", "ray"] = "in-process"  # simulations only
    ray_cpus: Annotated[float, Field(gt=0, le=256)] = 1.0  # ray: cores that a site takes while it works
    ray_gpus: Annotated[float, Field(ge=0, le=64)] = 0.0  # ray: likewise; 0.25 = four sites share one
    threads: Annotated[int, Field(ge=1, le=256)] = 2  # torch threads; part of what makes runs bit-equal

    @model_validator(mode="after")
    def _mu_belongs_to_fedprox(self) -> FederationSettings:
        if (self.proximal_mu > 0) != (self.algorithm == "fedprox"):
            raise ValueError('expected proximal-mu > 0 with algorithm = "fedprox", and 0 without')
        return self


Sums = Literal["plain", "masked", "noised"]


class PrivacySettings(Section):
    """What protects patients beyond their data staying where they are; each site's own budget is in its site.toml."""

    mode: Literal["none", "sample", "client"] = (
        "none"  # sample: differential privacy of every patient (DP-SGD, noised sums); client: of every site's updates
    )
    sums: Sums = "plain"  # how sums leave a site; noised exactly with mode = "sample"
    sampling_rate: Annotated[float, Field(gt=0, lt=1)] = 0.05  # chance of a patient to be in a step (sample)
    clip: Positive = 1.0  # bound on the norm of a patient's gradient (sample)
    physical_batch: Count = 64  # patients in memory at once (sample)
    sums_share: Annotated[float, Field(gt=0, lt=1)] = 0.2  # of epsilon, for the training part's sums (sample)
    hazard_every: Count = 4  # rounds between releases of hazard sums (sample)
    reserve: Annotated[int, Field(ge=0, le=100)] = (
        1  # times that a round, the survey, one of validation may each be paid for again after a kill (sample, client)
    )
    hazard_clip: Annotated[float, Field(ge=1, le=1e6)] = (
        10.0  # bound on exp(log hazard), loss and sums (sample)
    )
    time_bins: Annotated[int, Field(ge=1, le=8)] = 8  # of the noised histogram (sample)
    risk_bins: Annotated[int, Field(ge=2, le=8)] = 8  # of the noised histogram (sample)
    hazard_bins: Annotated[int, Field(ge=2, le=64)] = (
        8  # of noised events and hazard sums, up to horizon-days (sample)
    )
    entry_times: bool = (
        False  # patients may enter after their ECG: hazard sums then need sqrt 2 of the noise (sample)
    )
    masked_bound: Positive = 1.0  # largest change of one weight in a round (masked sums)
    client_clip: Positive = 1.0  # bound on the norm of a site's update (client)
    client_noise: Annotated[float, Field(ge=0.01, le=1e6)] = (
        1.0  # of the sum of all updates: standard deviation over client-clip (client)
    )
    client_epsilon: Annotated[float, Field(ge=0, le=1000)] = (
        0.0  # of every site, over the whole study: the noise that keeps it; 0: client-noise as it is (client)
    )
    client_delta: Annotated[float, Field(gt=0, le=1e-3)] = 1e-5  # at which epsilon is told (client)
    client_force: bool = False  # also with fewer than 50 sites (client)

    @model_validator(mode="after")
    def _noised_with_sample_privacy(self) -> PrivacySettings:
        if (self.mode == "sample") != (self.sums == "noised"):
            raise ValueError('expected sums = "noised" with mode = "sample", and not without')
        return self

    @model_validator(mode="after")
    def _clipped_updates_can_be_masked(self) -> PrivacySettings:
        if self.mode == "client" and self.sums == "masked" and self.masked_bound < self.client_clip:
            raise ValueError(
                'expected masked-bound >= client-clip with mode = "client" and sums = "masked": an update of the norm '
                "client-clip may change one weight by as much"
            )
        return self

    @property
    def tells_of_alignment(self) -> bool:
        """Whether a site's effective ranks, and how many of its records state something, may leave it.

        They are no sums over patients: only where a site's figures are open to the server anyway. Else they stay at
        the site, and in its own log.
        """
        return self.sums == "plain"


MOST_REPEATS = 9


class EvaluationSettings(Section):
    """Federated and pooled evaluation."""

    time_bins: Annotated[int, Field(ge=1, le=4096)] = 24
    risk_bins: Annotated[int, Field(ge=2, le=4096)] = 50
    horizons_years: Annotated[
        list[Annotated[float, Field(gt=0, le=100)]], Field(min_length=1, max_length=20)
    ] = [
        1.0,
        3.0,
        5.0,
        10.0,
    ]  # of absolute risk, Brier score, AUC and calibration
    tau_years: Annotated[float, Field(gt=0, le=100)] = 5.0  # Uno's C counts events before it
    risk_groups: Annotated[int, Field(ge=2, le=10)] = 3  # whose survival is shown
    min_at_risk: Annotated[int, Field(ge=1)] = (
        20  # a site with fewer beyond a horizon contributes nothing there
    )
    bootstrap: Annotated[int, Field(ge=0, le=100000)] = 1000
    comparison: bool = True  # also train the pooled and local-only columns
    explain: bool = True  # also test, at every site, whether the model's attention is true
    explain_ecgs: Annotated[int, Field(ge=10, le=300)] = (
        100  # of a site, at most; about 75 passes of the network each; sites with fewer than 10 are not tested
    )
    # How often the study trains again, with other seeds, to see whether attention looks at the same places then.
    explain_seeds: Annotated[int, Field(ge=0, le=MOST_REPEATS)] = 1
    explain_seeds_from: Literal["aligned", "scratch"] = (
        "aligned"  # only the survival stage again, from the same aligned weights; or both stages
    )
    leave_one_site_out: bool = False  # with comparison: a federation without each site, judged on that site
    random_encoder: bool = False  # with comparison: a federation whose encoder stays as it was drawn
    measured: bool = False  # with comparison: a Cox model of age, sex, heart rate and QRS duration
    baselines: bool = (
        False  # deployments: each site trains alone, too, and returns its counts (as long as the study)
    )
    local_models: bool = True  # with comparison: each site alone, too, and not the pooled model only

    @model_validator(mode="after")
    def _horizons_rise(self) -> EvaluationSettings:
        if sorted(set(self.horizons_years)) != self.horizons_years:
            raise ValueError("expected horizons-years in rising order, each once")
        asked = self.leave_one_site_out or self.random_encoder or self.measured
        if asked and not self.comparison:
            raise ValueError("expected comparison = true with leave-one-site-out, random-encoder or measured")
        return self
