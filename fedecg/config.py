"""Settings of a study and of a site: one strict pydantic model a section, all problems in one message.

In:  a TOML file (kebab-case keys) and `key=value` overrides.
Out: frozen `StudySettings` or `SiteSettings`. Called by every command line, and by the client for settings
that it receives.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, ValidationError, model_validator

from fedecg.errors import SettingsError

__all__ = [
    "AlignSettings",
    "DataSettings",
    "EvaluationSettings",
    "FederationSettings",
    "ModelSettings",
    "PartitionSettings",
    "PolicySettings",
    "PrivacySettings",
    "ServerSettings",
    "SignalSettings",
    "SiteDefaults",
    "SitePrivacySettings",
    "SiteSettings",
    "StudySettings",
    "SurvivalSettings",
    "TextSettings",
    "load_site",
    "load_study",
    "median_samples",
    "parse_settings",
    "settings_sha256",
]

Stage = Literal["align", "survival"]
STUDY_NAME = r"^[a-z0-9][a-z0-9-]{0,63}$"
SITE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A settings section: strict types, no unknown keys, kebab-case in files."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        alias_generator=lambda name: name.replace("_", "-"),
        populate_by_name=True,
        allow_inf_nan=False,
    )


class DataSettings(Section):
    """Where the ECGs come from (simulations only)."""

    source: Literal["synthetic", "ptbxl", "code15", "cohort"] = "synthetic"
    path: str = ""  # folder of the data set as published; `--data` overrides it
    store: Annotated[str, Field(min_length=1)] = "runs/store"  # preprocessed signals are kept and reused here
    sites: dict[str, Annotated[int, Field(ge=1, le=1_000_000)]] = Field(
        default_factory=dict
    )  # synthetic: site name -> patients for train + validation
    test_patients: Annotated[int, Field(ge=1, le=1_000_000)] = (
        6000  # synthetic: patients of the separate test part
    )
    records_hz: Literal[100, 500] = 100  # ptbxl: which of the two published folders to read
    event_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.30  # ptbxl: share of simulated events
    events: Annotated[int, Field(ge=0)] = (
        0  # training events whose outcome is known, over all sites; the other patients align only. 0 = all
    )
    aligned: str = ""  # aligned networks are kept and reused here, a folder; "" = every study aligns its own


class PartitionSettings(Section):
    """How records become virtual sites (simulations only)."""

    by: Literal["column", "dirichlet", "quantity", "iid"] = "column"
    column: Literal["site", "device"] = "site"
    sites: Count = 4  # number of virtual sites, unless `by = "column"`
    label: Literal["superclass", "event"] = "superclass"  # what a Dirichlet split skews
    follow_up: Literal["full", "staggered", "disjoint"] = (
        "full"  # sites stop at different times; or see other years
    )
    alpha: Positive = 0.5  # Dirichlet concentration or, for `quantity`, evenness; small = uneven


class SignalSettings(Section):
    """From a recording to the network's input; stored inside every model file."""

    input: Literal["rhythm", "median"] = (
        "rhythm"  # the middle of the recording, or the median of its beats (then rate-hz 500 has samples 608)
    )
    rate_hz: Annotated[int, Field(ge=50, le=1000)] = 100
    samples: Annotated[int, Field(ge=64, le=16384, multiple_of=32)] = 1024
    highpass_hz: Positive = 0.5
    lowpass_hz: Positive = 40.0
    powerline: Literal["50", "60", "none"] = (
        "none"  # notch; a hospital that builds its own store chooses its own
    )

    @model_validator(mode="after")
    def _band_fits_rate(self) -> SignalSettings:
        if not self.highpass_hz < self.lowpass_hz < self.rate_hz / 2:
            raise ValueError("expected highpass-hz < lowpass-hz < rate-hz / 2")
        return self

    @model_validator(mode="after")
    def _length_is_that_of_a_beat(self) -> SignalSettings:
        if self.input == "median" and self.samples != median_samples(self.rate_hz):
            raise ValueError(
                f'expected samples = {median_samples(self.rate_hz)} with input = "median" at {self.rate_hz} Hz'
            )
        return self


BEFORE_R_S, AFTER_R_S = 0.4, 0.8  # of a median beat: 1.2 s, P to T at ordinary rates


def median_samples(rate_hz: int) -> int:
    """Length of the network's input for a median beat: 1.2 s, padded to the next multiple of 32 (500 Hz: 608)."""
    return -32 * (-(round(BEFORE_R_S * rate_hz) + round(AFTER_R_S * rate_hz)) // 32)


class ModelSettings(Section):
    """The dual-attention network."""

    preset: Literal["fedecg", "paper"] = "fedecg"
    size: Literal["base", "small"] = "base"  # `small`: for tests and research grids; `paper` has one size
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2


class StageSettings(Section):
    """What both training stages have in common."""

    rounds: Annotated[int, Field(ge=0)] = 10
    local_steps: Count = 20  # optimiser steps a site makes in a round, the same at every site
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 64
    learning_rate: Positive = 1e-3
    weight_decay: NonNegative = 1e-2
    optimizer: Literal["adamw", "sgd"] = "adamw"  # starts anew every round; sgd: plain, without momentum
    clip_norm: Positive = 5.0  # bound on the norm of a local gradient
    reconstruction: Fraction = 0.0  # weight of the reconstruction loss; the rest goes to the main loss


class AlignSettings(StageSettings):
    """Stage 1: pull the ECG embedding to the embedding of what the report says."""

    loss: Literal["bank", "paper", "infonce"] = "bank"
    class_weights: Literal["none", "public"] = (
        "none"  # bank: rare statements count more, by public frequencies
    )
    start: str = ""  # folder of an aligned model to begin with; with rounds = 0 it goes straight to survival
    bank: str = "minilm-demo"  # a bank in the package, or a path to a .safetensors bank
    likelihood_zero: Literal["stated", "paper"] = "stated"  # PTB-XL: 0 means "not stated how likely"
    # Codes of the bank that alignment is not shown, neither as targets nor as negatives: for zero-shot on unseen ones.
    leave_out: Annotated[tuple[str, ...], Field(strict=False), PlainSerializer(list)] = ()
    targets: Literal["stated", "shuffled"] = (
        "stated"  # shuffled: a control, each record gets what another of its site and part states
    )
    temperature: Annotated[float, Field(ge=0.01, le=1.0)] = 0.1  # start value; learned within [0.01, 1]
    reconstruction: Fraction = 0.1
    masked_leads: Annotated[int, Field(ge=0, le=11)] = (
        3  # leads hidden from the encoder in a step, one draw for the batch
    )

    @model_validator(mode="after")
    def _weights_belong_to_bank(self) -> AlignSettings:
        if self.class_weights != "none" and self.loss != "bank":
            raise ValueError('expected class-weights = "none" unless loss = "bank"')
        return self


MOST_GRID_BINS = 100_000  # days up to 273 years


class SurvivalSettings(StageSettings):
    """Stage 2: Cox fine-tuning."""

    loss: Literal["cox-batch", "cox-site", "cox-pooled", "grouped"] = "cox-pooled"
    ties: Literal["efron", "breslow"] = (
        "efron"  # cox-batch and cox-site; cox-pooled is Breslow on binned times
    )
    baseline: Literal["shared", "site"] = "shared"  # cox-pooled: one baseline hazard for all, or one a site
    bins: Annotated[int, Field(ge=2, le=4096)] = 64  # most time bins of the pooled baseline hazard
    grid_days: Positive = 30.0  # public grid on which sites report events once
    horizon_days: Positive = 7305.0  # the public grid ends here (20 years)
    exp_bound: Annotated[float, Field(gt=0, le=50)] = 10.0  # beyond it exp(log hazard) is continued linearly
    freeze_rounds: Annotated[int, Field(ge=0)] = 0  # the encoder stays as it is in so many first rounds
    encoder_rate: Annotated[float, Field(ge=0, le=10)] = (
        1.0  # of learning-rate, for the encoder; the rest has 1
    )
    alignment: Annotated[float, Field(ge=0, lt=1)] = (
        0.0  # weight of the alignment loss kept in survival training; the rest is the survival loss
    )

    @model_validator(mode="after")
    def _grid_is_of_reasonable_size(self) -> SurvivalSettings:
        if self.horizon_days / self.grid_days > MOST_GRID_BINS:
            raise ValueError(f"expected at most {MOST_GRID_BINS} bins of grid-days up to horizon-days")
        return self

    @property
    def intercepts(self) -> int:
        """Baseline parameters among the network's weights: one a time bin for `grouped`, else none."""
        return self.bins if self.loss == "grouped" else 0


Transfer = Literal["float32", "float16", "bfloat16"]


class FederationSettings(Section):
    """Rounds: who must answer, for how long to wait, how updates are added up."""

    algorithm: Literal["fedavg", "fedprox", "median", "trimmed-mean", "krum"] = "fedavg"
    proximal_mu: NonNegative = 0.0  # fedprox: weight of the pull to the round's first weights
    hostile_sites: Count = 1  # trimmed-mean, krum: as many sites as may lie without harm
    transfer: Transfer = "float32"  # how a site sends its update; 16 bits halve it and round it
    weight: Literal["auto", "patients", "events"] = (
        "auto"  # auto: patients for sum losses, events for cox-batch, cox-site
    )
    quorum: Count = 1  # fewest sites whose replies make a round
    deadline_s: Positive = 3600.0  # longest wait for the replies of one exchange
    grace_s: Positive = (
        30.0  # longest wait for the rest beyond their usual time, once the quorum has answered
    )
    patience_s: NonNegative = 3600.0  # below the quorum: longest wait for sites to come back, in one exchange
    backend: Literal["in-process", "ray"] = "in-process"  # simulations only
    threads: Annotated[int, Field(ge=1, le=256)] = 2  # torch threads; part of what makes runs bit-equal

    @model_validator(mode="after")
    def _mu_belongs_to_fedprox(self) -> FederationSettings:
        if (self.proximal_mu > 0) != (self.algorithm == "fedprox"):
            raise ValueError('expected proximal-mu > 0 with algorithm = "fedprox", and 0 without')
        return self


Sums = Literal["plain", "masked", "noised"]


class PrivacySettings(Section):
    """What protects patients beyond their data staying where they are; each site's own budget is in its site.toml."""

    mode: Literal["none", "sample"] = (
        "none"  # sample: differential privacy of every patient (DP-SGD, noised sums)
    )
    sums: Sums = "plain"  # how sums leave a site; noised exactly with mode = "sample"
    sampling_rate: Annotated[float, Field(gt=0, lt=1)] = 0.05  # chance of a patient to be in a step (sample)
    clip: Positive = 1.0  # bound on the norm of a patient's gradient (sample)
    physical_batch: Count = 64  # patients in memory at once (sample)
    sums_share: Annotated[float, Field(gt=0, lt=1)] = 0.2  # of epsilon, for the training part's sums (sample)
    hazard_every: Count = 4  # rounds between releases of hazard sums (sample)
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

    @model_validator(mode="after")
    def _noised_with_sample_privacy(self) -> PrivacySettings:
        if (self.mode == "sample") != (self.sums == "noised"):
            raise ValueError('expected sums = "noised" with mode = "sample", and not without')
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
    baselines: bool = (
        False  # deployments: each site trains alone, too, and returns its counts (as long as the study)
    )
    local_models: bool = True  # with comparison: each site alone, too, and not the pooled model only

    @model_validator(mode="after")
    def _horizons_rise(self) -> EvaluationSettings:
        if sorted(set(self.horizons_years)) != self.horizons_years:
            raise ValueError("expected horizons-years in rising order, each once")
        if self.leave_one_site_out and not self.comparison:
            raise ValueError("expected comparison = true with leave-one-site-out")
        return self


class SitePrivacySettings(Section):
    """How much a site lets its patients be known; a study decides none of it."""

    epsilon: Positive | None = (
        None  # budget of every patient, over all studies; none: no study with mode = "sample"
    )
    delta: Annotated[float, Field(gt=0, lt=1)] | None = None
    sums: Literal["any", "masked", "noised"] = (
        "any"  # the least protection of sums that this site takes part in
    )
    threshold_patients: Annotated[int, Field(ge=0)] = 10  # fewest distinct patients behind a plain cell
    threshold_events: Annotated[int, Field(ge=0)] = (
        5  # fewest events behind a plain cell that tells of events
    )
    approve: Literal["none", "first-round"] = "none"  # look at the first message of a study before it leaves

    @model_validator(mode="after")
    def _epsilon_and_delta_together(self) -> SitePrivacySettings:
        if (self.epsilon is None) != (self.delta is None):
            raise ValueError("expected epsilon and delta, or neither")
        return self


class SiteDefaults(SitePrivacySettings):
    """The same for every virtual site (simulations only): their data are public or generated, so nothing is small."""

    threshold_patients: Annotated[int, Field(ge=0)] = 0
    threshold_events: Annotated[int, Field(ge=0)] = 0


class StudySettings(Section):
    """One study: what the coordinator decides, plus, in a simulation, the data and how they are split."""

    name: Annotated[str, Field(pattern=STUDY_NAME)] = "study"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: DataSettings = DataSettings()
    partition: PartitionSettings = PartitionSettings()
    site_defaults: SiteDefaults = SiteDefaults()
    signals: SignalSettings = SignalSettings()
    model: ModelSettings = ModelSettings()
    align: AlignSettings = AlignSettings()
    survival: SurvivalSettings = SurvivalSettings()
    federation: FederationSettings = FederationSettings()
    privacy: PrivacySettings = PrivacySettings()
    evaluation: EvaluationSettings = EvaluationSettings()

    @model_validator(mode="after")
    def _private_alignment_is_a_sum(self) -> StudySettings:
        if self.privacy.mode == "sample" and self.align.loss == "infonce":
            raise ValueError(
                'expected align.loss = "bank" or "paper" with privacy.mode = "sample": infonce couples the records of '
                "a batch, so that no record's share of a step can be bounded"
            )
        return self


Phase = Literal["align", "survival", "evaluate", "explain", "baselines"]
HOURS = r"^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-4]):[0-5][0-9]$"


class ServerSettings(Section):
    """Where a site finds its coordinator, and what it knows it by."""

    address: Annotated[str, Field(pattern=r"^[^\s:/]+:[0-9]{1,5}$")]  # host:port of the fleet port
    ca: str = "ca.crt"  # the coordinator's certificate authority, absolute or relative to this file
    key: str = (
        "node.key"  # the site's private key, absolute or relative to this file; it never leaves the site
    )


class PolicySettings(Section):
    """What a site takes part in. Without it a site takes part in nothing."""

    studies: list[str] = []  # names of studies; "*" = any (simulations), and then no lock is kept
    phases: list[Phase] = ["align", "survival", "evaluate", "explain", "baselines"]
    # To the first lock of a study: `fedecg-client accept` (or policy.locks), or whatever comes first.
    consent: Literal["ask", "first"] = "ask"
    locks: dict[
        str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    ] = {}  # study -> sha256 of the only lock allowed
    rounds_a_day: Annotated[int, Field(ge=1)] = 10_000
    hours: Annotated[str, Field(pattern=HOURS)] = "00:00-24:00"  # local time; may cross midnight
    most_local_steps: Annotated[int, Field(ge=1)] = 10_000  # of a round
    task_limit_s: Positive = 6 * 3600.0  # a task that runs longer is ended
    keep_replies: bool = True  # until acknowledged, so that a lost reply is sent again byte for byte


class TextSettings(Section):
    """Free-text reports of a site, and the language model that reads them there. Without it codes alone are used."""

    encoder: Annotated[str, Field(min_length=1)]  # folder of the bank's own language model
    reports: str = ""  # table (csv) with the columns record, report; "": column report of the cohort table
    mix: Fraction = 0.5  # weight of the report where a record has codes, too; the rest is the codes'
    by_sentence: bool = True  # each sentence points at statements of its own; or the report as a whole
    temperature: Annotated[float, Field(ge=0.005, le=1.0)] = 0.05  # small: the nearest statement alone
    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch: Annotated[int, Field(ge=1, le=1024)] = 16  # reports at once


class SiteSettings(Section):
    """What a site decides for itself: `site.toml` in the site's folder."""

    name: Annotated[str, Field(pattern=SITE_NAME)]
    store: str  # folder of the signal store, absolute or relative to this file
    cohort: str  # cohort table (csv), absolute or relative to this file
    text: TextSettings | None = None  # none: the site takes part by codes
    server: ServerSettings | None = None  # none: a virtual site of a simulation
    policy: PolicySettings = PolicySettings()
    privacy: SitePrivacySettings = SitePrivacySettings()


Settings = TypeVar("Settings", bound=Section)


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> StudySettings:
    """Read a study (or simulation) file and apply `section.key=value` overrides.

    Raises:
        SettingsError: FECG-101..104; FECG-103 lists every problem of the file at once.
    """
    tree = _read_toml(Path(path))
    for override in overrides:
        _apply_override(tree, override)
    return parse_settings(StudySettings, tree)


def load_site(path: str | Path) -> SiteSettings:
    """Read a site's `site.toml`; its relative paths come back absolute.

    Raises:
        SettingsError: FECG-101..103.
    """
    site = parse_settings(SiteSettings, _read_toml(Path(path)))
    base, server = Path(path).resolve().parent, site.server
    if server:
        server = server.model_copy(update={"ca": str(base / server.ca), "key": str(base / server.key)})
    text = site.text
    if text:
        reports = str(base / (text.reports or site.cohort))
        text = text.model_copy(update={"encoder": str(base / text.encoder), "reports": reports})
    places = {
        "store": str(base / site.store),
        "cohort": str(base / site.cohort),
        "text": text,
        "server": server,
    }
    return site.model_copy(update=places)


def parse_settings(kind: type[Settings], tree: Mapping[str, Any]) -> Settings:
    """Validate a tree of kebab-case keys (from TOML or from a message).

    Raises:
        SettingsError: FECG-103, one line a problem, each with the key's path.
    """
    try:
        return kind.model_validate(dict(tree))
    except ValidationError as error:
        lines = [_describe(problem) for problem in error.errors()]
    raise SettingsError(
        "FECG-103",
        "settings",
        found=f"{len(lines)} problem(s)\n  " + "\n  ".join(lines) + "\n",
        expected="keys and ranges as in configs/*.toml",
    )


def settings_sha256(settings: Section) -> str:
    """Hash of all settings, independent of the order in which a file states them."""
    text = json.dumps(settings.model_dump(by_alias=True), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            "FECG-101",
            path.name,
            found=type(error).__name__,
            expected="a readable TOML file",
            fix="Check the path.",
        ) from None
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # not TOML, a number beyond all bounds, nested without end
        raise SettingsError("FECG-102", path.name, found=f"{error!s:.200}", expected="TOML 1.0") from None


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    *sections, last = key.strip().split(".")
    if not equals or not last or not all(sections):
        raise SettingsError(
            "FECG-104",
            "--set",
            found="a word that is not key=value",
            expected="--set section.key=value",
            fix="Example: --set survival.loss=cox-batch",
        )
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise SettingsError(
                "FECG-104", f"--set {key}", found="a key below a value", expected="section.key=value"
            )
    tree[last] = _override_value(text.strip())


def _override_value(text: str) -> object:
    """Read the value as TOML; a bare word that is not TOML is a string."""
    try:
        tree = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return tree["value"] if len(tree) == 1 else text


def _describe(problem: Any) -> str:
    path = ".".join(repr(str(part))[1:-1] for part in problem["loc"])[:200] or "(whole file)"
    found = "" if problem["type"] in ("missing", "extra_forbidden") else f" (found {problem['input']!r:.60})"
    message = {"extra_forbidden": "unknown key", "missing": "key is missing"}.get(
        problem["type"], problem["msg"]
    )
    return f"{path}: {message}{found}"
