"""The site's privacy budget: whether a study with differential privacy fits into it, its noise, what releases cost.

In:  the site's folder and settings, the study's settings, the run. Out: noise, the ledger's head after a spend (which
     goes with the reply: `LedgerHead.of`), or a `PolicyError` before anything is computed.
Called by the gate, by the ClientApp when the site joins, and by its work.
epsilon and delta come from the site's own site.toml alone.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import get_args

from fedecg.config import SiteSettings, StudySettings
from fedecg.errors import PolicyError, RunError
from fedecg.federation.spent import Budget
from fedecg.files import write_whole
from fedecg.privacy.accountant import Noise, Part, Plan, Spend
from fedecg.privacy.budget import study_noise
from fedecg.privacy.ledger import Head, Ledger, Purpose, open_ledger, patients_by_part
from fedecg.privacy.withdrawal import read_site_cohort
from fedecg_client.site_status import EPSILON_SPENT

__all__ = [
    "budget_document",
    "budget_of",
    "noise_here",
    "refuse_without_budget",
    "spend_here",
    "warn_of_strangers",
]

log = logging.getLogger("fedecg.client")


def refuse_without_budget(site: SiteSettings, study: StudySettings) -> None:
    """A study with differential privacy needs the site to say how much.

    Raises:
        PolicyError: FECG-438.
    """
    if study.privacy.mode == "sample":
        budget_of(site)


def budget_of(site: SiteSettings) -> tuple[float, float]:
    """Epsilon and delta of every patient of the site, over everything.

    Raises:
        PolicyError: FECG-438 the site states none.
    """
    epsilon, delta = site.privacy.epsilon, site.privacy.delta
    if epsilon is None or delta is None:
        raise PolicyError(
            "FECG-438",
            "privacy budget of the site",
            found='none, and a study with privacy.mode = "sample"',
            expected="epsilon and delta in [privacy] of site.toml",
            fix="Write what the site's patients may be known by, over all studies: epsilon = 8.0, delta = 1e-5;"
            " delta well below 1 in the number of patients.",
        )
    return epsilon, delta


def budget_document(site: SiteSettings) -> Budget:
    """The same as a reply carries it."""
    epsilon, delta = budget_of(site)
    return Budget(epsilon=epsilon, delta=delta)


def noise_here(folder: Path, site: SiteSettings, study: StudySettings, run: str) -> Noise:
    """The noise with which the whole study fits into what the site's patients have left; the same all through a run.

    Raises:
        PolicyError: FECG-438 no budget; FECG-430, FECG-437 it does not fit; FECG-431..433, FECG-436 the ledger.
        CohortError: the table cannot be read.
    """
    epsilon, delta = budget_of(site)
    cohort = read_site_cohort(folder, site.cohort)
    with open_ledger(folder) as ledger:
        patients = patients_by_part(ledger, cohort)
        return study_noise(ledger, Plan.of(study), patients, study.name, run, epsilon, delta)


def warn_of_strangers(folder: Path, site: SiteSettings) -> None:
    """Say in the site's log that the ledger knows nobody of its table: then nothing that was spent counts here.

    So it is for new patients, and so it looks when a table was made anew under other names, which nobody can notice.

    Raises:
        PolicyError: FECG-431..433, FECG-436 the ledger. CohortError: the table cannot be read.
    """
    cohort = read_site_cohort(folder, site.cohort)
    with open_ledger(folder) as ledger:
        here = frozenset[bytes]().union(*patients_by_part(ledger, cohort).values())
        known = ledger.patients
    if known and here and not known & here:
        log.warning(
            "none of the %d patients of the table is among the %d of the ledger: if they are the same under other "
            "names, what was spent on them counts as unspent; give each the name that it had",
            len(here),
            len(known),
        )


def spend_here(folder: Path, site: SiteSettings, purpose: Purpose, spends: Sequence[Spend]) -> Head:
    """Write releases down before they are computed; the head goes with the reply (`LedgerHead.of`).

    Raises:
        PolicyError: FECG-434 they would pass the budget; else as `noise_here`.
    """
    epsilon, delta = budget_of(site)
    cohort = read_site_cohort(folder, site.cohort)
    with open_ledger(folder) as ledger:
        head = ledger.spend(purpose, spends, patients_by_part(ledger, cohort), epsilon, delta)
        _tell_spent(folder, ledger, delta)
    return head


def _tell_spent(folder: Path, ledger: Ledger, delta: float) -> None:
    """Epsilon of whom most was released about, for `fedecg-client status`: it must not hold the ledger open itself."""
    state = folder / "state"
    if state.is_dir():
        spent = max(ledger.epsilon({part: ledger.patients_of(part)}, delta) for part in get_args(Part))
        with suppress(RunError):  # a full disk costs the line, not the work
            write_whole(state / EPSILON_SPENT, json.dumps({"epsilon-spent": spent}) + "\n")
