"""Every way fedecg refuses to go on.

Each error carries a code (`FECG-nnn`), so that a site can ask for help without sending a value, a path or a
date. The text says what, what was found (a count or a kind), what was expected, and how to mend it.

    FedecgError
    ├── SettingsError        FECG-1xx  a settings file or an override          exit 3
    ├── ClinicalInputError   FECG-2xx  ECG files, cohort tables, codes         exit 3
    │   ├── SignalError      FECG-20x, 21x, 27x  a recording or the signal store
    │   ├── CohortError      FECG-22x, 23x  patients, events, follow-up, splits
    │   └── TextError        FECG-24x, 25x  codes, statements, banks, reports
    ├── ModelError           FECG-3xx  weights, shapes, training               exit 3
    ├── PolicyError          FECG-4xx  privacy and site policy                 exit 4
    ├── FederationError      FECG-5xx  messages, rounds, quorum                exit 1
    └── RunError             FECG-6xx  files and processes of a run            exit 1
        └── RunInputError    FECG-602  a run's folder that a command is given  exit 3
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

__all__ = [
    "CODES",
    "ClinicalInputError",
    "CohortError",
    "FedecgError",
    "FederationError",
    "ModelError",
    "PolicyError",
    "RunError",
    "RunInputError",
    "SettingsError",
    "SignalError",
    "TextError",
    "some_of",
]

# One row a code: what it stands for. A test checks that the codes raised anywhere are these.
CODES: dict[str, str] = {
    "FECG-101": "settings file missing or not readable",
    "FECG-102": "settings file is not TOML",
    "FECG-103": "settings are wrong (all problems are listed)",
    "FECG-104": "an override (--set) is not key=value",
    "FECG-105": "a node has no site folder",
    "FECG-106": "a published data set without its folder",
    "FECG-107": "a quorum of more sites than there are",
    "FECG-108": "an option of the Cox model is out of range",
    "FECG-109": "a test part of a table is no COL=VALUE, empty or everything",
    "FECG-110": "a single site cannot be left out",
    "FECG-111": "grid file missing, not readable or not TOML",
    "FECG-112": "a grid file is wrong (all problems are listed)",
    "FECG-113": "settings of a grid's cells are wrong (all problems are listed)",
    "FECG-114": "cells of a grid whose data, partition or quorum cannot be",
    "FECG-115": "fewer training events than outcomes that are to stay known",
    "FECG-116": "studies of a grid to be run that it does not have",
    "FECG-117": "reports asked of virtual sites that have none",
    "FECG-121": "a folder that is not empty, or a file that would be written over, at a site",
    "FECG-122": "a file that is not the coordinator's certificate authority",
    "FECG-123": "a folder that is no site's",
    "FECG-124": "a port, the name of a study or a hash that cannot be",
    "FECG-125": "a folder that is no coordinator's",
    "FECG-126": "a name for a site that cannot be used or is taken",
    "FECG-127": "a file that is no EC P-384 public key as OpenSSH writes it",
    "FECG-128": "a private key where a public key belongs",
    "FECG-129": "a key that another site has, that was removed, or that was changed by hand",
    "FECG-201": "record missing or its header not readable",
    "FECG-202": "header is not a WFDB header",
    "FECG-203": "header names no signal file",
    "FECG-204": "signal file missing or not readable",
    "FECG-205": "signal file is truncated",
    "FECG-206": "signal file misses the checksums in its header",
    "FECG-207": "unknown unit of a lead",
    "FECG-208": "unknown lead name",
    "FECG-209": "a lead is stored more than once",
    "FECG-210": "leads are missing",
    "FECG-211": "impossible shape or sampling rate of a recording",
    "FECG-212": "signal file that the wfdb package cannot read either",
    "FECG-213": "recording is too short",
    "FECG-214": "more than half of the leads are flat or not recorded",
    "FECG-215": "signal store is absent or not finished",
    "FECG-216": "signal store is damaged or of another format",
    "FECG-217": "rows outside the signal store",
    "FECG-218": "signal store cannot be written",
    "FECG-219": "signal store of no records",
    "FECG-221": "cohort columns differ in kind or length",
    "FECG-222": "follow-up is not positive",
    "FECG-223": "unknown part",
    "FECG-224": "a patient in more than one part",
    "FECG-225": "a record stands in the cohort more than once",
    "FECG-226": "age, sex, likelihood or death out of range",
    "FECG-227": "cohort table missing, not readable or without a column",
    "FECG-228": "cells of the cohort table that cannot be read",
    "FECG-229": "shares of the parts cannot be used",
    "FECG-230": "observation begins after the end of follow-up",
    "FECG-231": "a patient has several records in survival training",
    "FECG-232": "the cohort names records that the store does not have",
    "FECG-233": "the cohort names records that quality rules refused",
    "FECG-234": "a table of reports is missing, not readable or without a column",
    "FECG-235": "outcomes or risks to be evaluated differ in length",
    "FECG-236": "time to be evaluated is negative or not finite",
    "FECG-237": "event to be evaluated is neither 0 nor 1",
    "FECG-238": "risk to be evaluated is not finite",
    "FECG-239": "table of patients is not readable or empty",
    "FECG-240": "a language model for reports that is not the bank's",
    "FECG-241": "no such code bank, or its files cannot be read",
    "FECG-242": "codes and vectors of a bank do not fit",
    "FECG-243": "vectors of a bank are not finite or not of length 1",
    "FECG-244": "a bank's sha256 is not the recorded one",
    "FECG-245": "codes that the bank has no statement for",
    "FECG-246": "likelihoods outside 0 to 100",
    "FECG-247": "language model folder cannot be used",
    "FECG-248": "package transformers is not installed",
    "FECG-249": "options of embedding that there are none of",
    "FECG-250": "a table of statements is missing, not readable or without a column",
    "FECG-251": "rows without a code or description, codes twice, or too few in a table of statements",
    "FECG-252": "embeddings of a language model are not finite, or all the same",
    "FECG-253": "a GPU is asked for and there is none",
    "FECG-254": "columns of a table are absent, or have two roles",
    "FECG-255": "covariates of a table are missing or not numbers",
    "FECG-256": "follow-up of a table is negative, missing or not a number",
    "FECG-257": "event of a table is neither 0 nor 1",
    "FECG-258": "site of a table is missing",
    "FECG-259": "entry of a table is not between 0 and the follow-up",
    "FECG-260": "columns of a table are dates or durations, not numbers",
    "FECG-261": "an option of the ECG paper that there is none of",
    "FECG-262": "strips under the traces that cannot be drawn",
    "FECG-263": "a file of another kind than SVG, PDF, PNG for an ECG",
    "FECG-264": "a code bank that keeps nothing to put reports beside its statements",
    "FECG-265": "no names of records to predict, or a list that cannot be read",
    "FECG-266": "nobody to evaluate in a part of the cohort",
    "FECG-267": "a patient has several records in an evaluation",
    "FECG-268": "a table of an outside hospital's patients that cannot be read, lacks a column, or has no ECGs",
    "FECG-269": "cells of an outside hospital's table that cannot be read",
    "FECG-270": "codes of a bank whose frequency nobody has published",
    "FECG-271": "a header that states no gain: the signal is not calibrated",
    "FECG-272": "amplitudes that no heart has: half of the leads span more than 30 mV (a wrong gain or unit)",
    "FECG-273": "a format that this version does not read (it reads WFDB, and PhysioNet .mat with its .hea; the XML of "
    "CardioSoft, GE MUSE, Philips Sierra and HL7; SCP-ECG, DICOM, EDF, HDF5, CSV, Parquet, NumPy: docs/formats.md)",
    "FECG-274": "a folder, not a record",
    "FECG-275": "a file that fedecg predict did not write would be replaced",
    "FECG-276": "a format whose packages are not installed: pip install 'fedecg[vendors]'",
    "FECG-277": "an ECG file that begins as its format does and does not go on as one: damaged, or written differently",
    "FECG-278": "an ECG file that declares or holds more than an ECG of its size can",
    "FECG-280": "numbers whose sampling rate, unit or leads nobody states",
    "FECG-281": "a file with several ECGs, or without the one that is named (FILE#3)",
    "FECG-282": "an ECG file without the rhythm strip, or without the median beat, that is asked for",
    "FECG-283": "XML that declares entities or refers to other files",
    "FECG-284": "a variant of an ECG format that this version does not read",
    "FECG-294": "no file to ingest, or a list or table of files that cannot be read",
    "FECG-295": "different files that would stand in a store's manifest under one name",
    "FECG-296": "a folder for a store that holds something else",
    "FECG-297": "a file whose reading ended or hung its process, twice",
    "FECG-298": "a file on whose content a reader fails in a way that nobody foresaw",
    "FECG-299": "a recording that the network's input cannot be made of (no whole beat; or a stored beat, no strip)",
    "FECG-285": "a cohort's settings file is missing or not TOML",
    "FECG-286": "a table or the key of the cohort builder is missing, not readable, open to others, or lacks a column",
    "FECG-287": "dates, versions, ages, births or codes in a hospital's tables that are missing or cannot be read",
    "FECG-288": "times with an offset from UTC, and no time zone of the hospital",
    "FECG-289": "dates of a patient in the wrong order (birth, ECGs and diagnoses, death)",
    "FECG-290": "rows of a hospital's tables that contradict each other or have no patient",
    "FECG-291": "nobody meets the rules of a cohort",
    "FECG-292": "the signal store and the table of ECGs, or the cohort table, do not fit",
    "FECG-293": "several kinds of fault in the tables of a cohort (all are listed)",
    "FECG-301": "samples do not fit the encoder",
    "FECG-303": "weight vector of the wrong length",
    "FECG-304": "weight vector that is not finite",
    "FECG-306": "a file of a model folder is missing or not readable",
    "FECG-307": "model.json is not one of this format",
    "FECG-308": "a file of a model folder is not the one that SHA256SUMS or model.json names",
    "FECG-309": "weights of a model do not fit its network",
    "FECG-310": "a model to start from that does not fit the study",
    "FECG-311": "a checkpoint to import has no tensors that can be read",
    "FECG-312": "a checkpoint to import cannot be read without running code",
    "FECG-313": "a checkpoint to import has none, or several, of the authors' encoders",
    "FECG-314": "tensors of a checkpoint's encoder are missing, unknown or of another shape",
    "FECG-315": "signal settings that do not fit the weights of a checkpoint",
    "FECG-316": "a model of imported weights, whose risk head nobody trained, is asked for risks",
    "FECG-317": "an import into a folder that is not empty",
    "FECG-321": "a baseline hazard is not a rising step function",
    "FECG-322": "bins with events have no usable risk sum",
    "FECG-323": "a training loss or gradient is not finite",
    "FECG-324": "a network with BatchNorm and a batch of one record",
    "FECG-325": "a survival round lacks the pooled baseline hazard",
    "FECG-326": "log hazards are not finite",
    "FECG-327": "the store's signals have another length than the study's",
    "FECG-328": "another number of alignment targets than of records",
    "FECG-331": "a Cox model of no event",
    "FECG-332": "a covariate of the Cox model is constant",
    "FECG-333": "covariates of the Cox model are collinear",
    "FECG-334": "no optimum of the Cox model in sight (separation, or values far out)",
    "FECG-335": "Newton steps of the Cox model do not converge",
    "FECG-336": "sums of the Cox model leave the range of numbers",
    "FECG-345": "baseline variance or population of a model that cannot be",
    "FECG-346": "horizons of a prediction are not positive and rising",
    "FECG-347": "a model whose baseline hazard is missing or too short to be evaluated",
    "FECG-348": "packages for an export are not installed",
    "FECG-349": "an exported program gives other log hazards than its network",
    "FECG-350": "a store whose signals are not those of the model",
    "FECG-351": "no event to recalibrate with",
    "FECG-352": "a recalibrated model would replace its original",
    "FECG-353": "signals to be explained do not fit the network",
    "FECG-354": "models or maps of different signal lengths are compared",
    "FECG-355": "sums of an explanation that do not belong together",
    "FECG-356": "fewer than two models to compare over seeds",
    "FECG-357": "a file of another kind than HTML, PNG, PDF, SVG for an explanation",
    "FECG-358": "sums over fewer patients than may leave a site",
    "FECG-359": "a task to train again that the study's settings do not have",
    "FECG-360": "weights that are not those of as many models as the task names",
    "FECG-361": "the tests of a model's attention cannot be read, or are of another model",
    "FECG-370": "no records to judge a representation by in the folder named",
    "FECG-371": "embeddings that are not finite",
    "FECG-372": "a bank that the model was not aligned to",
    "FECG-373": "two models of one name are compared",
    "FECG-374": "models of different input are compared on the same records",
    "FECG-376": "a linear probe that has no optimum",
    "FECG-377": "counts of a label's AUC that do not belong together",
    "FECG-378": "codes to be left out of alignment that the bank does not have, or all of them",
    "FECG-380": "an outcome of ECGs that only alignment learns from",
    "FECG-381": "alignment is kept in survival training, and there is no code bank",
    "FECG-385": "differential privacy with layers that have no exact gradient a patient",
    "FECG-386": "differential privacy with a loss that is no sum over patients",
    "FECG-387": "differential privacy without a baseline hazard from noised sums",
    "FECG-388": "a patient's gradient that depends on the other patients of its batch",
    "FECG-389": "gradients of the patients that do not add up to that of the loss",
    "FECG-392": "scaffold: a site's own control variate is not that which the coordinator counts",
    "FECG-394": "attention maps of an encoder that has none",
    "FECG-411": "a study that the site's policy does not name",
    "FECG-412": "a lock that is not the one in the site's policy",
    "FECG-413": "a lock that is not the one that the site joined with",
    "FECG-414": "a study whose list of sites does not name the site",
    "FECG-415": "more local steps in a round than the site's policy allows",
    "FECG-416": "a task that is not of the lock that the site joined with",
    "FECG-417": "a phase that the site's policy does not allow",
    "FECG-418": "a task outside the hours of the site's policy",
    "FECG-419": "more local rounds in a day than the site's policy allows",
    "FECG-420": "a task asks for more than the study's lock says",
    "FECG-430": "a study that cannot be done within the site's privacy budget",
    "FECG-431": "the site's ledger is open in another process",
    "FECG-432": "the site's ledger was changed or damaged",
    "FECG-433": "the key of the site's ledger is missing or another one",
    "FECG-434": "a release that would pass the privacy budget of the site's patients",
    "FECG-435": "the site's ledger is older than the one that the coordinator saw, or another one",
    "FECG-436": "the site's ledger cannot be written",
    "FECG-437": "a study that does not fit into what is left of the site's privacy budget",
    "FECG-438": "a study with differential privacy at a site that states no epsilon",
    "FECG-439": "a patient twice in a sum whose noise covers one",
    "FECG-440": "patients who enter late in a study with differential privacy that knows of none",
    "FECG-444": "a masked sum that may not be opened: too few sites, or opened for others before",
    "FECG-445": "numbers that cannot be masked: not finite, or beyond the agreed bound",
    "FECG-446": "keys of masked sums that are not those of the study's sites",
    "FECG-447": "a task that asks for plain sums where masked ones were agreed on",
    "FECG-448": "what leaves the site cannot be recorded",
    "FECG-449": "the first message of a study waits for a look at the site",
    "FECG-450": "a file that protects patients cannot be read: what left, what was approved, who has withdrawn",
    "FECG-451": "no message of this study waits for a look, or no such patient is there to be withdrawn",
    "FECG-452": "a cohort that differs by a few patients from one of which something was released",
    "FECG-453": "too few patients or events to take part with sums that the coordinator can read",
    "FECG-454": "an ECG of a patient who has withdrawn",
    "FECG-501": "a message is not a fedecg document, or its weights are not one float32 vector",
    "FECG-503": "sums or counts of another length than the study's grid, or missing",
    "FECG-504": "weights missing or of the wrong length",
    "FECG-505": "an update that is not finite",
    "FECG-506": "no site has a positive aggregation weight, or too few for a robust mean",
    "FECG-507": "fewer usable replies than the quorum",
    "FECG-508": "Flower reports that a site's reply cannot be had",
    "FECG-509": "a reply of another site or another round",
    "FECG-510": "a site runs other code than the coordinator",
    "FECG-511": "the baseline hazard cannot be kept near the number of events",
    "FECG-512": "no training events at any site",
    "FECG-513": "two nodes give the same site name",
    "FECG-514": "a site holds another code bank than the study",
    "FECG-515": "a reply counts more patients or events than its site joined with",
    "FECG-516": "a site's hazard sums make a negative risk set",
    "FECG-517": "late entries in the part to be evaluated",
    "FECG-518": "a site joined another study's lock",
    "FECG-519": "a site gives another name than its key was added under",
    "FECG-520": "a run cannot be resumed with other settings, code or bank",
    "FECG-521": "a site's evaluation cells are of the wrong shape or kind",
    "FECG-522": "a site's evaluation cells are negative",
    "FECG-523": "a site's pair counts contradict themselves",
    "FECG-524": "a site's pair counts contradict its cells",
    "FECG-525": "no site's counts to evaluate",
    "FECG-526": "cuts of the evaluation grid do not increase",
    "FECG-527": "parts of a site's sums contradict themselves or each other",
    "FECG-531": "life tables of different bins or groups",
    "FECG-532": "cause of leaving is none of 0, 1 and 2",
    "FECG-533": "a life table that no patients have",
    "FECG-534": "probabilities to be evaluated are outside 0 to 1, or not one a patient and horizon",
    "FECG-535": "horizons of an evaluation are not increasing days",
    "FECG-536": "sites' sums of different horizons or grids",
    "FECG-537": "log hazards, hazards, probabilities or weights that cannot be calibrated",
    "FECG-538": "calibration sums that do not belong together",
    "FECG-541": "a lock names other code than the site has installed",
    "FECG-542": "a lock does not speak of one study, or not in words that print",
    "FECG-545": "an update far longer than the others' and the site's own",
    "FECG-546": "the checkpoint of a run is damaged",
    "FECG-547": "the heads of the sites' ledgers that a coordinator has kept are damaged",
    "FECG-554": "a study that nobody at the site has agreed to yet",
    "FECG-560": "settings that differential privacy rules out",
    "FECG-561": "a reply that says other things than differential privacy lets it",
    "FECG-562": "noise that leaves no event of a study to learn from",
    "FECG-563": "too few sites for differential privacy of sites",
    "FECG-564": "fewer sites than a masked sum needs",
    "FECG-565": "settings that masked sums rule out",
    "FECG-566": "shares that do not open a masked sum",
    "FECG-567": "masked replies that do not fit together",
    "FECG-568": "a site's key for masked sums that it did not sign",
    "FECG-569": "keys or shares of a masked sum that are damaged",
    "FECG-599": "a fault that fedecg did not foresee (its place is in the site's own log)",
    "FECG-601": "a file cannot be written",
    "FECG-602": "a file of a finished run is missing or not readable",
    "FECG-603": "the Ray backend is asked for and not installed",
    "FECG-604": "interrupted",
    "FECG-605": "another run is writing to the run folder",
    "FECG-606": "outcomes are said to be other than the run says",
    "FECG-607": "folder for the hospitals is not empty",
    "FECG-608": "another process writes the same signal store",
    "FECG-609": "data to report on that are no site, store or ECGs, or a table of these that cannot be used",
    "FECG-610": "thresholds of a report for outside that are too low",
    "FECG-611": "unknown virtual hospital of the synthetic consortium",
    "FECG-612": "processes that read ECGs end before they begin",
    "FECG-616": "a data set's folder is not laid out as published, or holds nothing that can be used",
    "FECG-617": "a data set of another version than the one that fedecg reads",
    "FECG-618": "files of a published data set are missing",
    "FECG-619": "files of a published data set differ from its checksums",
    "FECG-620": "a published list of checksums that cannot be used",
    "FECG-621": "data-set folder or a table in it is missing or not readable",
    "FECG-622": "columns or cells of the data set that cannot be read",
    "FECG-623": "signal files of the data set are missing",
    "FECG-624": "folds of the data set do not make three parts",
    "FECG-625": "a virtual site without training patients",
    "FECG-626": "records cannot be split over the virtual sites",
    "FECG-627": "a data set that its publisher does not give to everybody",
    "FECG-628": "files of a data set could not be downloaded",
    "FECG-629": "a table of ECGs, or cells of it, that cannot be used",
    "FECG-630": "parts of a data set that it does not have",
    "FECG-631": "a cell of a grid ended without saying why (killed, or a fault)",
    "FECG-632": "a cell of a grid ended without a summary of its settings",
    "FECG-633": "a virtual site whose training recordings were all refused",
    "FECG-634": "Ray has no machine with room for one site",
    "FECG-641": "another agent runs for this site",
    "FECG-642": "Flower, or the app, is not the version that fedecg needs",
    "FECG-643": "the coordinator's CA or the site's key is missing or not usable",
    "FECG-644": "the coordinator's certificate is not signed by the site's CA",
    "FECG-645": "the coordinator's certificate is made out to another name",
    "FECG-646": "the coordinator's certificate has expired or is not valid yet",
    "FECG-647": "the coordinator's port is no fleet port with TLS",
    "FECG-648": "the coordinator does not let this node in (key not registered, online already, clock)",
    "FECG-649": "the coordinator does not answer",
    "FECG-651": "a key or a state folder that others than its owner can read",
    "FECG-652": "this machine's clock is wrong, or differs from the coordinator's",
    "FECG-653": "the coordinator's name cannot be looked up",
    "FECG-654": "too little room on the site's disk",
    "FECG-655": "too little memory at the site",
    "FECG-656": "the site's policy lets it take part in nothing",
    "FECG-657": "a public key that does not belong to the site's key",
    "FECG-658": "a certificate authority that is not the one read over the phone",
    "FECG-659": "the site's agent does not stop, was killed, or cannot be told",
    "FECG-660": "a key would be written over, or there is no new key to use",
    "FECG-661": "a cohort table without rows",
    "FECG-665": "a part of the cohort that a study needs has no patients",
    "FECG-671": "a coordinator's folder, keys or a backup would be written over",
    "FECG-672": "the list of sites is missing or damaged",
    "FECG-673": "a certificate or key of the coordinator cannot be used",
    "FECG-674": "a certificate of the coordinator has expired",
    "FECG-675": "the SuperLink's list of nodes cannot be read or changed",
    "FECG-676": "no such site in the list",
    "FECG-677": "a backup would not hold everything",
    "FECG-678": "another command is changing the list of sites",
    "FECG-679": "a step that takes something away, without consent",
    "FECG-681": "flwr of another minor version than fedecg was written for",
    "FECG-682": "the SuperLink does not come up",
    "FECG-683": "a port of the coordinator is in use",
    "FECG-684": "the SuperLink's database is missing or damaged",
    "FECG-685": "a coordinator runs in this folder already",
    "FECG-686": "no run to resume",
    "FECG-687": "the coordinator's processes fail again and again",
    "FECG-688": "a submitted bundle is not that of the installed fedecg",
    "FECG-689": "the coordinator does not stop, or cannot be told",
    "FECG-691": "a port of the dashboard or the metrics cannot be had",
    "FECG-692": "the coordinator's disk is full",
    "FECG-693": "a folder from a backup, whose list of sites nobody has confirmed",
}


class FedecgError(Exception):
    """Base of all errors that fedecg raises on purpose.

    Args:
        code: `FECG-nnn`, a key of `CODES`.
        what: what is wrong (a setting, a lead, a column); never a patient's id, value, date or path.
        found: a count or a kind.
        expected: range and unit, or the kind that was expected.
        fix: what the reader can do about it.
    """

    exit_status: ClassVar[int] = 1

    def __init__(self, code: str, what: str, *, found: str, expected: str, fix: str = "") -> None:
        self.code, self.what, self.found, self.expected, self.fix = code, what, found, expected, fix
        text = f"{code} {what}: found {found}; expected {expected}."
        super().__init__(f"{text} {fix}" if fix else text)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.code, self.what, self.found, self.expected, self.fix)


def some_of(names: Sequence[str], most: int = 10) -> str:
    """Names in a sentence; of very many the first few, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _rebuild(
    kind: type[FedecgError], code: str, what: str, found: str, expected: str, fix: str
) -> FedecgError:
    return kind(code, what, found=found, expected=expected, fix=fix)


class SettingsError(FedecgError):
    """A settings file or an override cannot be used."""

    exit_status = 3


class ClinicalInputError(FedecgError):
    """Clinical data (signals, tables, codes) cannot be used as they are."""

    exit_status = 3


class SignalError(ClinicalInputError):
    """A recording or a signal store cannot be used."""


class CohortError(ClinicalInputError):
    """Patients, events, follow-up or splits cannot be used."""


class TextError(ClinicalInputError):
    """Codes, statements or a code bank cannot be used."""


class ModelError(FedecgError):
    """Weights, shapes or a training step cannot be used."""

    exit_status = 3


class PolicyError(FedecgError):
    """Refused by the site's or the study's policy."""

    exit_status = 4


class FederationError(FedecgError):
    """A message or a round cannot be used."""


class RunError(FedecgError):
    """A run's files or processes are not as they must be."""


class RunInputError(RunError):
    """The folder of a run, given to a command that reads it, is none or is not whole: bad input, no fault of ours."""

    exit_status = 3
