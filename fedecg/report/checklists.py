"""What TRIPOD+AI and TRIPOD-Cluster ask of whoever reports a prediction model, item by item, in words of our own.

In:  nothing. Out: `TRIPOD_AI`, `TRIPOD_CLUSTER`, tuples of `Item`. Called by `tripod`, which answers them from a run.
A run both develops and evaluates a model, so that items for either (D, E) and items for both all apply.

Source: Collins et al. 2024, BMJ 385:e078378, doi 10.1136/bmj-2023-078378, table 2: 27 items, 52 with their parts;
    Debray et al. 2023, BMJ 380:e071018, doi 10.1136/bmj-2022-071018, table 3: 19 items, 37 with their parts.

Checked: the BMJ pages themselves could not be had here. TRIPOD+AI: every number and subject against three
transcriptions of the table that agree (github kostadinoff/reporting-guidelines, github Aperivue/medsci-skills, and one
of the form of 11 January 2024). TRIPOD-Cluster: every number and subject against one of them
(kostadinoff/reporting-guidelines, tripod-cluster-2023.md); of a second, the form on Scribd 875542045, only items 1 and
2 could be read, and the filled form of a published study (eFalls, NIHR127905), as quoted by others, has 7a and 18
alike. For the wording that counts, read the originals.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["TRIPOD_AI", "TRIPOD_CLUSTER", "Item"]


class Item(NamedTuple):
    """One item of a checklist.

    Attributes:
        number: as published.
        asks: what it asks for.
        answer: name of the run's answer (`tripod.answers`), or "" where a run cannot say anything.
        left: what the authors must still state, or "" where the run's answer is enough.
    """

    number: str
    asks: str
    answer: str
    left: str


TRIPOD_AI: tuple[Item, ...] = (
    Item("1", "Title: development or evaluation, population, outcome", "", "all three in the title"),
    Item("2", "Abstract, by its own checklist", "", "an abstract by TRIPOD+AI for Abstracts"),
    Item(
        "3a",
        "Prognosis or diagnosis, in which care; why a model, beside which others",
        "",
        "why this model, beside which others",
    ),
    Item(
        "3b",
        "Target population, purpose in the care pathway, users",
        "",
        "for whom, where in care, used by whom",
    ),
    Item("3c", "Known health inequalities", "", "inequalities known in this population"),
    Item("4", "Objectives", "objectives", ""),
    Item(
        "5a",
        "Sources of data for development and for evaluation, why these, how representative",
        "source",
        "why these sites, and whom they represent",
    ),
    Item("5b", "Dates of accrual and of the end of follow-up", "", "the dates: none leaves a site"),
    Item("6a", "Setting, number and place of centres", "sites", "kind of care and place of every site"),
    Item("6b", "Eligibility", "index", "the criteria by which patients entered"),
    Item(
        "6c",
        "Treatments, and what was done about them",
        "",
        "treatments after the ECG, which the model ignores",
    ),
    Item(
        "7",
        "Preparation and quality checks, alike for all groups?",
        "preparation",
        "whether alike in all groups",
    ),
    Item(
        "8a",
        "Outcome, horizon, how and when assessed, why this one; alike for all groups?",
        "outcome",
        "codes and sources that define heart failure, why this outcome, whether assessed alike in all groups",
    ),
    Item(
        "8b",
        "Who assessed outcomes, if judgement was needed",
        "",
        "whether outcomes were judged, and the training and background of whoever judged",
    ),
    Item("8c", "Blinding of the outcome's assessment", "", "whether assessors knew the ECG"),
    Item("9a", "Which predictors were candidates, and any choice before training", "predictors", ""),
    Item(
        "9b",
        "Predictors: definition, how and when measured, blinding",
        "measured",
        "devices, how ECGs were recorded, whether reports were written blind to the outcome",
    ),
    Item(
        "9c",
        "Who assessed predictors, if judgement was needed",
        "judgement",
        "who wrote the reports or codes, and their training and background",
    ),
    Item(
        "10",
        "Sample size of development and of evaluation, and its justification",
        "size",
        "why it is enough for the question",
    ),
    Item(
        "11",
        "Missing data, reasons for leaving out",
        "missing",
        "missing outcomes and lost patients at the sites",
    ),
    Item("12a", "How data were used and partitioned", "partition", ""),
    Item("12b", "Form in which predictors entered: scale, transformation", "form", ""),
    Item(
        "12c",
        "Type of model and why, all steps of building, tuning, internal validation",
        "building",
        "why this type of model, any tuning before this run",
    ),
    Item(
        "12d", "How parameters and performance may differ between clusters: handling, measure", "clusters", ""
    ),
    Item(
        "12e",
        "Measures and plots of performance, and why these; comparison of models",
        "measures",
        "why these measures for this use",
    ),
    Item("12f", "Updating after the evaluation, overall or for some groups or places", "updating", ""),
    Item("12g", "How predictions were calculated", "formula", ""),
    Item("13", "Class imbalance: what was done about it, and recalibration after that", "imbalance", ""),
    Item(
        "14",
        "Fairness: what was done for it, and why",
        "fairness",
        "what else was done for fairness, and why",
    ),
    Item("15", "Output of the model; classes and thresholds, if any", "output", ""),
    Item(
        "16",
        "Development against evaluation data: setting, eligibility, outcome, predictors",
        "difference",
        "differences between the parts at each site",
    ),
    Item("17", "Ethical approval and consent", "", "committee, approval and consent or waiver at each site"),
    Item("18a", "Funding", "", "who paid, and their role"),
    Item("18b", "Conflicts of interest", "", "interests of all authors"),
    Item("18c", "Protocol", "lock", "where the protocol is, or that there is none"),
    Item("18d", "Registration", "", "register and number, or that there is none"),
    Item("18e", "Data sharing", "", "who may have the data, and how"),
    Item("18f", "Code sharing", "code", "where the code is"),
    Item(
        "19", "Patient and public involvement", "", "how patients and public took part, or that they did not"
    ),
    Item(
        "20a",
        "Flow into the analysis, how many had the outcome and how many not, follow-up",
        "flow",
        "who was left out before",
    ),
    Item(
        "20b",
        "Characteristics, overall, by source and between groups",
        "sites",
        "age, sex, key dates, treatments, follow-up and missing data by site, and differences between groups",
    ),
    Item("20c", "Evaluation against development data", "", "distribution of age, sex and outcome in both"),
    Item("21", "Participants and events in each analysis", "partition", ""),
    Item(
        "22", "The full model, for use by others, and access to it", "model", "restrictions of access or use"
    ),
    Item("23a", "Performance with intervals, also of subgroups", "performance", ""),
    Item("23b", "Heterogeneity of performance between clusters", "heterogeneity", ""),
    Item("24", "Results of updating: the new model and its performance", "updating", ""),
    Item(
        "25",
        "Interpretation, with fairness and previous studies",
        "result",
        "what it means beside previous studies",
    ),
    Item("26", "Limitations", "limits", "limits of the data that a run cannot know"),
    Item("27a", "Poor or missing input when the model is used", "input", ""),
    Item(
        "27b", "What users must do, and how expert they must be", "", "who would run it, and their training"
    ),
    Item(
        "27c", "Next steps, applicability, generalisability", "", "next studies, above all at outside sites"
    ),
)

TRIPOD_CLUSTER: tuple[Item, ...] = (
    Item("1", "Title: development or validation, population, outcome", "", "all three in the title"),
    Item("2", "Abstract", "", "a summary with setting, data, size, methods and results"),
    Item(
        "3a",
        "Prognosis or diagnosis, why a model, beside which others, advantage of the design",
        "",
        "why this model, and why clustered",
    ),
    Item("3b", "Objectives", "objectives", ""),
    Item(
        "4a", "Eligibility of participants and of data sets", "index", "criteria for patients and for sites"
    ),
    Item(
        "4b",
        "Origin of the data, how found, asked for and collected",
        "source",
        "how sites were found and asked",
    ),
    Item("5", "Sample size", "size", "how it was arrived at"),
    Item("6a", "Outcome, how and when assessed", "outcome", "codes and sources that define heart failure"),
    Item("6b", "Predictors, how and when measured", "measured", "devices and how ECGs were recorded"),
    Item(
        "7a",
        "Preparation: cleaning, harmonisation, linkage, quality",
        "preparation",
        "linkage of outcomes by site",
    ),
    Item(
        "7b",
        "How bias, and fit to the question, were judged in each cluster",
        "",
        "risk of bias and applicability by site, for instance by PROBAST",
    ),
    Item(
        "7c",
        "Validation against development data: definitions and measurement",
        "difference",
        "differences between the parts at each site",
    ),
    Item("7d", "Missing data", "missing", "missing outcomes and lost patients at the sites"),
    Item("8a", "Form in which predictors entered", "form", ""),
    Item(
        "8b",
        "Type of model, all steps of building, validation",
        "building",
        "any tuning before this run",
    ),
    Item("8c", "Heterogeneity of parameters between clusters", "clusters", ""),
    Item("8d", "How predictions were calculated", "formula", ""),
    Item("8e", "Measures of performance", "measures", ""),
    Item("8f", "Heterogeneity of performance: how quantified", "clusters", ""),
    Item("8g", "Updating", "updating", ""),
    Item(
        "9", "Planned subgroup and sensitivity analyses", "fairness", "sensitivity analyses that were planned"
    ),
    Item(
        "10a",
        "How many clusters and participants were found, and how many were left",
        "flow",
        "sites that were asked and did not join",
    ),
    Item(
        "10b",
        "Characteristics, overall and by cluster",
        "sites",
        "age, sex, key dates, treatments, follow-up and missing data by site",
    ),
    Item(
        "10c",
        "Validation against development data: distributions",
        "",
        "distribution of age, sex and outcome in both",
    ),
    Item("11", "Risk of bias by cluster: results", "", "the assessment of 7b"),
    Item("12a", "Heterogeneity that changed the model", "excluded", ""),
    Item("12b", "The final model and how to use it", "model", ""),
    Item("13a", "Performance with intervals, overall and by cluster", "performance", ""),
    Item("13b", "Heterogeneity of performance", "heterogeneity", ""),
    Item("14", "Results of updating, overall and by cluster", "updating", ""),
    Item("15", "Subgroup and sensitivity analyses: results", "subgroups", "sensitivity analyses"),
    Item("16a", "Interpretation, with heterogeneity", "result", "what it means beside previous studies"),
    Item(
        "16b",
        "Validation beside development and earlier validations",
        "",
        "earlier results of this model, if any",
    ),
    Item("16c", "Strengths and limitations", "limits", "limits of the data that a run cannot know"),
    Item(
        "17",
        "Possible use, further research, how far it carries over to other settings and groups",
        "",
        "where it could be used, for whom not, and what must be studied first",
    ),
    Item("18", "Supplementary resources", "code", "where protocol, code and data are"),
    Item("19", "Funding", "", "who paid, and their role"),
)
