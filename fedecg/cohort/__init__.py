"""Cohorts: patients, events, follow-up and the parts they belong to. See `cohort.py`, then `splits.py`."""

from fedecg.cohort.cohort import ALIGN, COLUMNS, PARTS, Cohort, read_cohort, write_cohort
from fedecg.cohort.cohort_store import require_same_store
from fedecg.cohort.splits import split_by_patient
from fedecg.cohort.subgroups import SUBGROUPS, subgroup_members

__all__ = [
    "ALIGN",
    "COLUMNS",
    "PARTS",
    "SUBGROUPS",
    "Cohort",
    "read_cohort",
    "require_same_store",
    "split_by_patient",
    "subgroup_members",
    "write_cohort",
]
