"""Settings of a study and of a site: one strict pydantic model a section, all problems in one message.

In:  a TOML file (kebab-case keys) and `key=value` overrides.
Out: frozen `StudySettings` or `SiteSettings`. Called by every command line, and by the client for settings
that it receives.
"""

from fedecg.config.exchange import (
    MOST_REPEATS,
    EvaluationSettings,
    FederationSettings,
    PrivacySettings,
    Transfer,
)
from fedecg.config.inputs import (
    AFTER_R_S,
    BEFORE_R_S,
    DataColumns,
    DataSettings,
    DriftSettings,
    PartitionSettings,
    SignalSettings,
    median_samples,
)
from fedecg.config.learning import AlignSettings, ModelSettings, StageSettings, SurvivalSettings
from fedecg.config.reading import load_site, load_study, parse_settings, settings_sha256
from fedecg.config.section import SITE_NAME, STUDY_NAME, Section, Stage
from fedecg.config.site import (
    PolicySettings,
    ServerSettings,
    SiteDefaults,
    SitePrivacySettings,
    SiteSettings,
    TextSettings,
)
from fedecg.config.study import StudySettings

__all__ = [
    "AFTER_R_S",
    "BEFORE_R_S",
    "MOST_REPEATS",
    "SITE_NAME",
    "STUDY_NAME",
    "AlignSettings",
    "DataColumns",
    "DataSettings",
    "DriftSettings",
    "EvaluationSettings",
    "FederationSettings",
    "ModelSettings",
    "PartitionSettings",
    "PolicySettings",
    "PrivacySettings",
    "Section",
    "ServerSettings",
    "SignalSettings",
    "SiteDefaults",
    "SitePrivacySettings",
    "SiteSettings",
    "Stage",
    "StageSettings",
    "StudySettings",
    "SurvivalSettings",
    "TextSettings",
    "Transfer",
    "load_site",
    "load_study",
    "median_samples",
    "parse_settings",
    "settings_sha256",
]
