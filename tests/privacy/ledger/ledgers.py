"""A ledger as a site uses it: releases booked and counted, refusals read, a cohort table of three patients."""

from pathlib import Path

import pytest

from fedecg.errors import PolicyError
from fedecg.privacy.accountant import Spend
from fedecg.privacy.ledger import Head, Purpose, open_ledger

DELTA = 1e-5
ALIGN, SURVIVAL = Purpose("hf", "first", "align", 1), Purpose("hf", "first", "survival", 1)
TRAINING, HAZARD = Spend("training", "train", 2.0, 0.1, 20), Spend("hazard", "train", 6.0)
HISTOGRAM = Spend("histogram", "test", 3.0)
SECRET = "patient-4711"


def spend(
    folder: Path, *spends: Spend, of: dict[str, list[str]] | None = None, purpose=ALIGN, epsilon=50.0
) -> Head:
    of = of or {"train": ["1", "2"], "test": ["3"]}
    with open_ledger(folder) as ledger:
        patients = {part: ledger.pseudonyms(names) for part, names in of.items()}
        return ledger.spend(purpose, spends, patients, epsilon, DELTA)


def spent(folder: Path, *names: str) -> float:
    with open_ledger(folder) as ledger:
        return ledger.epsilon({"train": ledger.pseudonyms(names)}, DELTA)


def refusal(act, *arguments, **more) -> PolicyError:
    with pytest.raises(PolicyError) as refused:
        act(*arguments, **more)
    assert refused.value.exit_status == 4
    return refused.value


def look(folder: Path) -> Head:
    with open_ledger(folder) as ledger:
        return ledger.head


TABLE = "record,patient,part,event,follow_up_days,age_years,female,codes\n"
ROWS = [
    "{},city-7,train,1,10.0,60.0,1.0,{{}}\n",
    "{},city-8,train,0,20.0,61.0,0.0,{{}}\n",
    "{},city-9,test,0,5.0,70.0,1.0,{{}}\n",
]


def table(folder: Path, rows: list[str]) -> Path:
    file = folder / "cohort.csv"
    file.write_text(TABLE + "".join(row.format(number) for number, row in enumerate(rows)))
    return file
