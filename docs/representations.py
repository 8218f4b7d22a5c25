"""The page of representations: aligns a network on PTB-XL in several ways, judges each, writes docs/representations.md.

nice .venv/bin/python docs/representations.py --data PATH-TO-PTB-XL

Needs the folder as published (or an excerpt). About 10 minutes for 350 ECGs on one core. Runs are kept in
runs/representations; one that is finished is not run again, unless fedecg is another than it was run with. What the
page says of the figures is made of them, too.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from fedecg.config import StudySettings, load_study
from fedecg.fingerprint import code_fingerprint
from fedecg.model import build_network, load_model
from fedecg.objectives import COLLAPSED_BELOW
from fedecg.progress import Progress
from fedecg.representation.document import Candidate, ProbePlan, judge, probe_document
from fedecg.representation.records import read_sites
from fedecg.representation.tables import apart_lines, federated_rows, main_rows, retrieval_rows
from fedecg.text import load_bank, make_bank, write_bank
from fedecg_server.run_folder import read_json
from fedecg_simulations.columns import run_column
from fedecg_simulations.partitions import virtual_sites
from fedecg_simulations.runner import ingest, refused_recordings, without_refused
from fedecg_simulations.sites import write_sites
from fedecg_simulations.sources import load_dataset

RUNS = Path("runs/representations")
PAGE = Path("docs/representations.md")
LEFT_OUT = ("ASMI", "NDT", "NORM")
ONLY_ALIGN = (
    "survival.rounds=0",
    "evaluation.comparison=false",
    "evaluation.explain=false",
    "federation.threads=1",
)
SIZES = ("align.rounds=30", "align.local-steps=10", "align.batch-size=64", "align.learning-rate=1e-3")
CLASSES = (
    "runs/representations/classes.safetensors"  # of the supervised control: a code is a class, not a text
)
VARIANTS: dict[str, tuple[str, ...]] = {
    "bank": (),
    "paper loss": ("align.loss=paper",),
    "shuffled text": ("align.targets=shuffled",),
    "reconstruction only": ("align.reconstruction=1.0",),
    "supervised": (f"align.bank={CLASSES}",),
    "codes left out": (f"align.leave-out={json.dumps(LEFT_OUT)}",),
}
PLAN = ProbePlan()
CONTROLS = ("shuffled text", "random encoder", "reconstruction only", "supervised")


def write_classes() -> None:
    """A bank whose statements are at right angles: its loss is the cross-entropy of a classifier of the codes."""
    codes = load_bank("minilm-demo").codes
    vectors = np.eye(len(codes), dtype=np.float32)
    write_bank(make_bank("classes", codes, vectors, {"note": "one direction a code; no text"}), CLASSES)


def settings_of(variant: str, data: str) -> StudySettings:
    """The study of a variant: configs/ptbxl.toml, alignment alone."""
    overrides = (
        f"data.path={json.dumps(data)}",
        'data.store="runs/store"',
        *SIZES,
        *ONLY_ALIGN,
        *VARIANTS[variant],
    )
    return load_study("configs/ptbxl.toml", overrides)


def align(variant: str, data: str, progress: Progress) -> Path:
    """Run a variant over its sites, unless this very fedecg has; returns its folder."""
    folder, settings = RUNS / variant.replace(" ", "-"), settings_of(variant, data)
    result = folder / "result.json"
    if result.exists() and read_json(result)["code-fingerprint"] == code_fingerprint():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    dataset, parts = virtual_sites(load_dataset(settings), settings.partition, settings.seed)
    store = ingest(dataset, settings, progress)
    refused_recordings(dataset, store, progress)
    write_sites(dataset.cohort, store.folder, without_refused(dataset, store, parts), folder / "sites")
    run_column(settings, folder / "sites", folder, variant)
    return folder


def judged(folders: dict[str, Path], progress: Progress) -> tuple[dict[str, Any], dict[str, Any]]:
    """The document of all models beside a random one, and that of the model whose codes were left out."""
    saved = {name: load_model(folder / "model") for name, folder in folders.items()}
    bank, first = load_bank("minilm-demo"), saved["bank"]
    random = build_network(
        first.network.settings, first.network.samples, first.network.bank_dim, seed=0
    ).eval()
    candidates = [
        Candidate(
            name,
            one.network,
            *((bank, "") if one.bank_sha256 == bank.sha256 else (None, "aligned to classes")),
        )
        for name, one in saved.items()
    ]
    candidates.insert(1, Candidate("random encoder", random, bank))
    sites = read_sites(folders["bank"] / "sites", first.signals, RUNS)
    hidden = ProbePlan(left_out=LEFT_OUT)
    with progress.task("judging", len(candidates) + 2) as advance:
        found, unseen = {}, {}
        for done, one in enumerate(candidates, start=1):
            found[one.name] = judge(one, sites, PLAN)
            advance(done)
        for one in candidates:
            if one.name in ("codes left out", "bank", "random encoder"):
                unseen[one.name] = judge(one, sites, hidden)
        advance(len(candidates) + 2)
    unseen = {"codes left out": unseen.pop("codes left out"), **unseen}
    return probe_document(found, sites, PLAN), probe_document(unseen, sites, hidden)


def losses(folder: Path) -> list[list[str]]:
    """Loss of the first and the last round of alignment at each site."""
    rounds = [one for one in read_json(folder / "rounds.json") if one["stage"] == "align"]
    first, last = rounds[0]["loss"], rounds[-1]["loss"]
    return [["site", "first round", "last round"]] + [
        [site, f"{first[site]:.3f}", f"{last[site]:.3f}"] for site in sorted(first)
    ]


def markdown(rows: list[list[str]]) -> str:
    """A table."""
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def differences(document: dict[str, Any]) -> list[list[str]]:
    """Of the first model's macro AUC and each other's, paired, where both have one."""
    keys = sorted({key for found in document["differences"].values() for key in found})
    rows = [["bank minus", *(key.replace("@1", "") for key in keys)]]
    for other, found in document["differences"].items():
        rows.append([other, *(_apart(found.get(key)) for key in keys)])
    known = [at for at in range(len(keys) + 1) if at == 0 or any(row[at] != "–" for row in rows[1:])]
    return [[row[at] for at in known] for row in rows]


def _apart(found: dict[str, Any] | None) -> str:
    if not found or found["difference"] is None:
        return "–"
    return f"{found['difference']:+.3f} ({found['ci-low']:+.3f} to {found['ci-high']:+.3f})"


def page(found: dict[str, Any], unseen: dict[str, Any], loss: list[list[str]]) -> str:
    """The page: what was done, the tables, and what they say."""
    sites = found["sites"]
    parts = ", ".join(f"{name} {sum(of.values())}" for name, of in sites.items())
    test = sum(of.get("test", 0) for of in sites.values())
    shots = [row for row in main_rows(unseen) if "labels" not in row[0]]
    few = "\n".join(f"- {line}" for line in apart_lines(found))
    return f"""# What the embeddings know: PTB-XL

Made by `docs/representations.py` from PTB-XL: one ECG a patient, {parts};
{test} test patients. `small` network, 10 s at 100 Hz, 30 federated alignment rounds of 10 steps, seed 0, no survival
training. Figures are of the test part and of one seed of training: the intervals tell of the test patients alone
(bootstrap, {found["bootstrap"]} draws, patients drawn within their site). A class with fewer than
{found["fewest-test-positives"]} test positives or negatives is in no macro AUC (listed below).
A probe with fewer than {found["fewest-labelled"]} labels is not shown.

- **bank**: the default, `align.loss = "bank"` with the demo bank (MiniLM). **paper loss**: `align.loss = "paper"`.
- **random encoder**: the same network, untrained. **reconstruction only**: `align.reconstruction = 1.0`.
- **shuffled text**: `align.targets = "shuffled"`, each record gets what another of its site and part states.
- **supervised**: end to end, the same loss on a bank of one direction a code: a classifier of the codes, no text.
- **codes left out**: `align.leave-out = {json.dumps(LEFT_OUT)}`, neither targets nor negatives.

{markdown(main_rows(found))}

Differences of macro AUC, paired over the same test patients:

{markdown(differences(found))}

**Federated.** The probes are fitted from sums over the sites (equal to the pooled fit to 1e-6: `tests/representation`);
their AUC from counts over score bins has guaranteed bounds:

{markdown(federated_rows(found))}

**Retrieval**: recall. Without looking: by the codes that most training records state (ECG to statement), by chance
(statement to ECG, among the test ECGs of a site).

{markdown(retrieval_rows(found))}

**Alignment loss** at each site (0.9 bank + 0.1 reconstruction), mean over the steps of a round:

{markdown(loss)}

**Codes left out of alignment**: zero-shot on them, and (first row) on the others.

{markdown(shots)}

Test positives of what is left out of the macro AUCs of the first model:

{few}

{reading(found, unseen)}"""


def reading(found: dict[str, Any], unseen: dict[str, Any]) -> str:
    """What the figures say, from the figures: a difference is called shown where its interval leaves 0 out."""
    test = sum(of.get("test", 0) for of in found["sites"].values())
    lines = [f"**What these figures say**, with {test} test patients and one seed of training:", ""]
    lines += [_against(found, other) for other in CONTROLS]
    lines += [_collapse(found, name) for name in ("bank", "paper loss")]
    lines += [_unseen_statements(unseen), _retrieval(found)]
    return "\n".join(f"- {line}" if line else line for line in lines).replace("- **What", "**What", 1) + "\n"


def _against(found: dict[str, Any], other: str) -> str:
    """Where the right text is told from a control."""
    told: dict[str, list[str]] = {"better": [], "worse": [], "not told apart": []}
    for key, apart in sorted(found["differences"][other].items()):
        if apart["difference"] is None:
            continue
        verdict = "better" if apart["ci-low"] > 0 else "worse" if apart["ci-high"] < 0 else "not told apart"
        told[verdict].append(key.replace("@1", " probe"))
    words = "; ".join(f"{verdict} in {', '.join(keys)}" for verdict, keys in told.items() if keys)
    return f"`bank` against {other}: {words or 'no figure that both have'}."


def _collapse(found: dict[str, Any], name: str) -> str:
    ranks = found["models"][name]["effective-rank"]
    verdict = "collapses" if ranks["embeddings"] < COLLAPSED_BELOW * ranks["targets"] else "does not collapse"
    return (
        f"`{name}` {verdict}: effective rank {ranks['embeddings']:.1f}, its targets' {ranks['targets']:.1f}."
    )


def _unseen_statements(unseen: dict[str, Any]) -> str:
    """Zero-shot on statements that alignment was not shown, against chance (0.5)."""
    shot = unseen["models"]["codes left out"]["zero-shot-left-out"]
    if not shot or shot["macro-auc"] is None:
        return "Statements that alignment was not shown: too few test ECGs have one to say."
    told = f"{shot['macro-auc']:.3f} ({shot['ci-low']:.3f} to {shot['ci-high']:.3f}), {len(shot['classes'])} code(s)"
    found = "are found" if shot["ci-low"] > 0.5 else "are not shown to be found"
    return f"Statements that alignment was not shown {found}: zero-shot {told}."


def _retrieval(found: dict[str, Any]) -> str:
    to_statement, to_ecg = (
        found["models"]["bank"]["retrieval"][way][0] for way in ("ecg-to-statement", "statement-to-ecg")
    )
    return (
        f"Retrieval at the first place: ECG to statement {to_statement['recall']:.3f}, without looking "
        f"{to_statement['guess']:.3f}; statement to ECG {to_ecg['recall']:.3f}, without looking {to_ecg['guess']:.3f}."
    )


def main() -> None:
    """Align, judge, write runs/representations/probe.json and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder of PTB-XL")
    options = parser.parse_args()
    progress = Progress()
    RUNS.mkdir(parents=True, exist_ok=True)
    write_classes()
    folders = {variant: align(variant, options.data, progress) for variant in VARIANTS}
    found, unseen = judged(folders, progress)
    (RUNS / "probe.json").write_text(json.dumps({"all": found, "left-out": unseen}, indent=2) + "\n")
    PAGE.write_text(page(found, unseen, losses(folders["bank"])))
    progress.say(f"written: {PAGE}")


if __name__ == "__main__":
    main()
