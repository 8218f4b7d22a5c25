"""The lock of a study: everything that a site agrees to, under one hash.

In:  the coordinator's settings, bank, code and list of sites. Out: a document that travels with the greeting, its
sha256, which people can compare over the phone, and a summary in plain words.
Called by the server, which makes it, and by the client, which keeps the first that it sees and refuses any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from fedecg.config import SITE_NAME, STUDY_NAME, Section, StudySettings, parse_settings, settings_sha256
from fedecg.federation.lock_words import how_protected, what_leaves

__all__ = ["StudyLock", "settings_document"]

HEX = r"^[0-9a-f]{64}$"
HEX_OR_NONE = r"^([0-9a-f]{64})?$"
ONLY_THE_COORDINATORS: Mapping[str, Any] = {
    "data": True,
    "partition": True,
    "drift": True,
    "site_defaults": True,
    "federation": {"backend", "ray_cpus", "ray_gpus", "finetune_rounds"},
    "align": {"start"},
    "survival": {"start"},
}


def settings_document(settings: StudySettings) -> dict[str, Any]:
    """What a site is told of the study: all but the coordinator's own paths and what concerns a simulation."""
    return settings.model_dump(by_alias=True, exclude=dict(ONLY_THE_COORDINATORS))


class StudyLock(Section):
    """What is agreed on. Sites, server and people compare its `sha256()`."""

    study: Annotated[str, Field(pattern=STUDY_NAME)]
    settings: dict[str, Any]  # as `settings_document` gives them
    bank_sha256: Annotated[str, Field(pattern=HEX)]  # the code bank
    # Of the bank: its centre, whitening and language model, for sites with reports; "" where it keeps none.
    space_sha256: Annotated[str, Field(pattern=HEX_OR_NONE)] = ""
    frequencies_sha256: Annotated[str, Field(pattern=HEX_OR_NONE)] = (
        ""  # public counts that class weights follow
    )
    code_fingerprint: Annotated[str, Field(pattern=HEX)]  # the installed fedecg that every site must run
    sites: list[
        Annotated[str, Field(pattern=SITE_NAME)]
    ] = []  # names that may take part; none: whoever connects (simulations)
    # Fingerprints of their keys, with which they sign those of masked sums, so that the server cannot use others.
    site_keys: dict[str, str] = {}

    def sha256(self) -> str:
        """Hash of all that is agreed on."""
        return settings_sha256(self)

    def summary(self, no_sites: str = "whoever connects") -> list[str]:
        """The lock in plain words, a line each, for whoever decides whether the site takes part.

        Args:
            no_sites: what an empty list of sites means: in a simulation that nobody is refused.
        """
        study = parse_settings(StudySettings, self.settings)
        steps = {stage: getattr(study, stage) for stage in ("align", "survival")}
        rounds = ", ".join(
            f"{stage.rounds} rounds of {stage.local_steps} steps ({name})" for name, stage in steps.items()
        )
        return [
            f"Study: {self.study}",
            f"Lock (sha256): {self.sha256()}",
            f"Sites: {', '.join(self.sites) or no_sites}",
            f"Training: {rounds}; loss {study.align.loss}, then {study.survival.loss}",
            f"Updates: {study.federation.algorithm}, sent as {study.federation.transfer}; a round counts with"
            f" {study.federation.quorum} sites;{_share_words(study)} {study.federation.threads} processor threads",
            f"Network: preset {study.model.preset}, size {study.model.size}",
            *what_leaves(study),
            *how_protected(study, self.site_keys),
            f"Code (fingerprint): {self.code_fingerprint}",
            f"Code bank (sha256): {self.bank_sha256}",
        ]


def _share_words(study: StudySettings) -> str:
    """How many sites a round asks, where it is not all of them."""
    fraction = study.federation.fraction
    return "" if fraction >= 1 else f" {fraction:.0%} of the sites are drawn for each round;"
