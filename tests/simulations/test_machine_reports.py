"""Lines of a cart's report as SCP statements."""

import csv
from importlib.resources import files

import pytest

from fedecg.text import scp_statements
from fedecg_simulations.machine_reports import report_codes

SAID = {
    "Sinus rhythm": {"SR": 100},
    "Sinus rhythm with PVC(s) with 1st degree A-V block": {"SR": 100, "PVC": 100, "1AVB": 100},
    "Sinus bradycardia": {"SBRAD": 100},
    "Atrial fibrillation with rapid ventricular response": {"AFIB": 100},
    "RBBB with left anterior fascicular block": {"CRBBB": 100, "LAFB": 100},
    "Right bundle branch block": {"CRBBB": 100},
    "Incomplete RBBB": {"IRBBB": 100},
    "Incomplete left bundle branch block": {"ILBBB": 100},
    "IVCD, consider atypical LBBB": {"IVCD": 50, "CLBBB": 50},
    "Left ventricular hypertrophy": {"LVH": 100},
    "Consider left atrial abnormality": {"LAO/LAE": 50},
    "Inferior infarct - age undetermined": {"IMI": 100},
    "Possible anteroseptal infarct - age undetermined": {"ASMI": 50},
    "Anterolateral infarct, old": {"ALMI": 100},
    "Inferior/lateral ST-T changes may be due to myocardial ischemia": {"ISCIL": 50},
    "ST-T changes may be due to myocardial ischemia": {"ISC_": 50},
    "Lateral ST-T changes are nonspecific": {"NST_": 100, "NT_": 100},
    "Inferior T wave changes are nonspecific": {"NT_": 100},
    "Low QRS voltages in precordial leads": {"LVOLT": 100},
    "Prolonged QT interval": {"LNGQT": 100},
    "Borderline 1st degree A-V block": {"1AVB": 50},
    "A-V block, complete (third degree)": {"3AVB": 100},
    "Supraventricular extrasystoles": {"PAC": 100},
    "Ventricular premature complexes": {"PVC": 100},
    "Ventricular pacing": {"PACE": 100},
    "Normal ECG": {"NORM": 100},
    "Normal ECG.": {"NORM": 100},
    "Sinus tachycardia": {"STACH": 100},
    "Sinus arrhythmia": {"SARRH": 100},
    "Atrial flutter": {"AFLT": 100},
    "Supraventricular tachycardia": {"SVTAC": 100},
    "Ventricular bigeminy": {"BIGU": 100},
    "Ventricular trigeminy": {"TRIGU": 100},
    "Prolonged PR interval": {"LPR": 100},
    "2nd degree A-V block, Mobitz I": {"2AVB": 100},
    "Left posterior fascicular block": {"LPFB": 100},
    "Biventricular hypertrophy": {"LVH": 100, "RVH": 100},
    "Biatrial enlargement": {"LAO/LAE": 100, "RAO/RAE": 100},
    "Old anterior infarct": {"AMI": 100},
    "Inferior/lateral infarct - age undetermined": {"ILMI": 100},
    "Inferior/posterior infarct, old": {"IPMI": 100},
    "Lateral infarct, old": {"LMI": 100},
    "Posterior infarct - possibly acute": {"PMI": 50},
    "Widespread T wave inversions": {"INVT": 100},
    "Anterior ST-T changes suggest myocardial ischemia": {"ISCAN": 50},
    "Ant/septal T wave changes may be due to myocardial ischemia": {"ISCAS": 50},
    "Anterolateral ST changes may be due to myocardial ischemia": {"ISCAL": 50},
    "Inferior ST-T changes may be due to myocardial ischemia": {"ISCIN": 50},
    "Lateral ST-T changes may be due to myocardial ischemia": {"ISCLA": 50},
    "High QRS voltage": {"HVOLT": 100},
    "Abnormal inferior Q waves": {"QWAVE": 100},
    "Poor R wave progression": {"ABQRS": 100},
    "ST junctional depression": {"STD_": 100},
    "ST elevation, early repolarization": {"STE_": 100},
    "Wolff-Parkinson-White pattern": {"WPW": 100},
    "ST changes, digitalis effect": {"DIG": 100},
    # what states nothing
    "Abnormal ECG": {},
    "Borderline ECG": {},
    "Otherwise normal ECG": {},
    "Normal ECG except for rate": {},
    "Left axis deviation": {},
    "Poor R wave progression - probable normal variant": {},
    "Cannot rule out anterior infarct - age undetermined": {},
    "*** report made without knowing patient's sex ***": {},
    "Possible arm lead reversal - only aVF, V1-V6 analyzed": {},
    "No ST depression": {},
    "": {},
}


@pytest.mark.parametrize("line", SAID)
def test_each_line_says_what_a_reader_would_take_from_it(line: str) -> None:
    assert report_codes([line]) == SAID[line]
    assert report_codes([f"  {line.upper()} "]) == SAID[line]


def test_a_report_states_what_any_of_its_lines_states_and_the_surest_counts() -> None:
    lines = [
        "Sinus rhythm",
        "Possible inferior infarct - age undetermined",
        "Inferior infarct, old",
        "Abnormal ECG",
    ]
    assert report_codes(lines) == {"SR": 100, "IMI": 100}


def test_every_rule_has_a_line_above_and_states_one_of_the_banks_statements() -> None:
    table = files("fedecg_simulations").joinpath("machine_statements.csv").read_text()
    rows = list(csv.DictReader(line for line in table.splitlines() if not line.startswith("#")))
    assert scp_statements().keys() >= {row["scp"] for row in rows}
    assert {row["scp"] for row in rows} == {code for codes in SAID.values() for code in codes}
