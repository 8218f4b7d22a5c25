"""Do reports point at the codes of their record? The numbers of docs/alignment.md.

Run: `python docs/alignment.py DATA MODEL`; DATA holds ptbxl/ and ptbxl_text/, MODEL the bank's language
model. Out: a Markdown table on stdout. Every figure is of `report_targets` as a site makes them.
"""

from __future__ import annotations

import argparse
import ast
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from fedecg.config import TextSettings
from fedecg.text import Bank, load_bank, targets
from fedecg.text.report_targets import report_targets
from fedecg.text.reports import informative

TABLES = {
    "ptbxl, site 1 (English)": ("ptbxl/ptbxl_database.csv", (1,)),
    "ptbxl_text, site 1 (English)": ("ptbxl_text/ptbxl_database_rhythm_subset.csv", (1,)),
    "ptbxl_text, sites 0 and 2 (German)": ("ptbxl_text/ptbxl_database_rhythm_subset.csv", (0, 2)),
}
DEALS = 200


def main() -> None:
    """Print a row a table, whole reports and by sentence."""
    parser = argparse.ArgumentParser(description="Agreement of report targets with codes.")
    parser.add_argument("data", type=Path)
    parser.add_argument("model", type=Path)
    options = parser.parse_args()
    bank = load_bank("minilm-demo")
    print(
        "| reports | n | read | first choice is a code of the record | of another record | weight on its codes |"
    )
    print("|---|---:|---|---:|---:|---:|")
    for name, (file, sites) in TABLES.items():
        frame = pd.read_csv(options.data / file)
        frame = frame[frame["site"].isin(sites)]
        for by_sentence in (False, True):
            print(
                _row(
                    name,
                    frame,
                    bank,
                    TextSettings(encoder=str(options.model), by_sentence=by_sentence, batch=64),
                )
            )


def _row(name: str, frame: pd.DataFrame, bank: Bank, text: TextSettings) -> str:
    said = [informative(report) for report in frame["report"].fillna("")]
    stated = targets([ast.literal_eval(codes) for codes in frame["scp_codes"]], bank) > 0
    with tempfile.TemporaryDirectory() as folder:
        found = report_targets(said, bank, text, Path(folder))
    reported = found.any(axis=1)
    found, stated = found[reported], stated[reported]
    rows, first, rng = np.arange(len(found)), found.argmax(axis=1), np.random.default_rng(0)
    own = stated[rows, first].mean()
    other = np.mean([stated[rng.permutation(rows), first].mean() for _ in range(DEALS)])
    weight = (found * stated).sum(axis=1).mean()
    read = "by sentence" if text.by_sentence else "whole"
    return f"| {name} | {len(found)} | {read} | {own:.1%} | {other:.1%} | {weight:.2f} |"


if __name__ == "__main__":
    main()
