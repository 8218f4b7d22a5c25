"""Free-text reports of a site with a section [text]: readable, and read by the language model that its studies need.

In:  the site's folder, its cohort, the studies that it has joined. Out: a `Check` with counts, without a word of a
report. Called by preflight. The model's files are compared by hash and not loaded: that takes seconds, not minutes.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

from fedecg_client.folder import SiteFolder
from fedecg_client.preflight.check import Check, failed, passed

if TYPE_CHECKING:
    from fedecg.cohort import Cohort
    from fedecg.config import TextSettings
    from fedecg.text import Bank

__all__ = ["check_reports"]

NAME, KIND = "reports", "data"


def check_reports(site: SiteFolder, text: TextSettings, cohort: Cohort, banks: Mapping[str, Bank]) -> Check:
    """The reports and, where some of them have not been embedded yet, the language model.

    Args:
        text: section [text] of site.toml.
        banks: study -> its bank, of the studies that the site has joined.

    Raises:
        TextError: FECG-234 reports that cannot be read; FECG-240, FECG-264 another language model than the bank's, or a
            bank without one; FECG-247 no such model.
    """
    from fedecg.text.encoder import folder_sha256
    from fedecg.text.report_targets import not_embedded, require_same_encoder
    from fedecg.text.reports import read_reports

    reports = read_reports(text.reports, cohort.record)
    new = {study: not_embedded(reports, bank, text, site.folder) for study, bank in banks.items()}
    for study, number in new.items():
        if number:
            require_same_encoder(banks[study], text)
    if not banks:
        folder_sha256(text.encoder)
    if (any(new.values()) or not banks) and find_spec("transformers") is None:
        return failed(
            NAME, KIND, "FECG-248", "no package transformers to read them with", 'pip install "fedecg[text]"'
        )
    stated = sum(map(bool, reports))
    return passed(
        NAME, KIND, f"{stated} of {len(reports)} ECGs have a report that states something", reported=stated
    )
