"""Settings: every problem at once, with the key's path; overrides; one hash whatever the order."""

from pathlib import Path

import pytest

from fedecg.config import StudySettings, load_site, load_study, parse_settings, settings_sha256
from fedecg.errors import FedecgError, SettingsError


def write(folder: Path, text: str) -> Path:
    file = folder / "study.toml"
    file.write_text(text)
    return file


def test_leaving_sites_out_is_part_of_the_comparison():
    with pytest.raises(SettingsError, match="expected comparison = true with leave-one-site-out"):
        parse_settings(StudySettings, {"evaluation": {"leave-one-site-out": True, "comparison": False}})


def test_a_public_grid_of_absurd_size_is_refused():
    with pytest.raises(SettingsError, match="expected at most 100000 bins of grid-days"):
        parse_settings(StudySettings, {"survival": {"grid-days": 1e-300}})


@pytest.mark.parametrize(
    ("stage", "key"),
    [(stage, key) for stage in ("align", "survival") for key in ("rounds", "local-steps")]
    + [("survival", "freeze-rounds")],
)
def test_more_rounds_or_steps_than_any_study_makes_are_refused(stage: str, key: str) -> None:
    for absurd in (100_001, 99_999_999_999_999_999_999):
        with pytest.raises(SettingsError, match=rf"{stage}\.{key}: .*100000 \(found {absurd}\)"):
            parse_settings(StudySettings, {stage: {key: absurd}})
    parse_settings(StudySettings, {stage: {key: 100_000}})


def test_all_problems_are_listed_in_one_message(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        'nmae = "x"\n[survival]\nbins = 1\nloss = "cox"\n[align]\nrounds = "ten"\n[data.sites]\na = 0\n',
    )
    with pytest.raises(SettingsError) as caught:
        load_study(file)
    text = str(caught.value)
    assert text.startswith("FECG-103 study.toml: found 5 problem(s)")
    for part in (
        "nmae: unknown key; did you mean name?",
        "survival.bins",
        "survival.loss",
        "align.rounds",
        "data.sites.a",
    ):
        assert part in text
    assert caught.value.exit_status == 3
    assert caught.value.expected == "keys and ranges as in the study.toml that fedecg-server init writes"
    assert caught.value.fix == "Mend each of these lines in study.toml."
    other = file.rename(tmp_path / "other.toml")
    with pytest.raises(SettingsError, match=r"FECG-103 other\.toml or --set: found 5 .*\n") as caught:
        load_study(other, ["seed=3"])
    assert caught.value.expected == "keys and ranges as in configs/*.toml"


def test_a_problem_is_told_in_plain_words_with_the_key_that_was_meant(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """
        nmae = "city"
        name = "the city"
        store = "store"
        cohort = 3
        [server]
        address = "https://ecg.example.org"
        [policy]
        hours = "evenings"
        most-local-steps = 0
        studise = ["heart-failure"]
        [policy.locks]
        heart-failure = "abc"
        """,
    )
    with pytest.raises(SettingsError) as caught:
        load_site(file)
    assert caught.value.found.splitlines()[1:] == [
        "  name: expected at most 64 letters, digits, dots, dashes and underscores, the first a letter or a digit "
        "(found 'the city')",
        "  cohort: expected a valid string (found 3)",
        '  server.address: expected HOST:PORT, such as "ecg.example.org:9092", without https:// '
        "(found 'https://ecg.example.org')",
        "  policy.locks.heart-failure: expected a SHA-256: 64 digits from 0 to 9 and a to f (found 'abc')",
        '  policy.hours: expected two times from "00:00" to "24:00", such as "20:00-06:00" (found \'evenings\')',
        "  policy.most-local-steps: expected a value greater than or equal to 1 (found 0)",
        "  policy.studise: unknown key; did you mean studies?",
        "  nmae: unknown key; did you mean name?",
    ]


def test_a_sites_problems_point_to_what_a_site_has_and_not_to_files_of_a_study(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"FECG-103 study\.toml: found \d+ problem\(s\)") as caught:
        load_site(write(tmp_path, 'name = "city"\nstoer = "store"\n'))
    assert "stoer: unknown key; did you mean store?" in caught.value.found
    assert caught.value.expected == "keys and ranges as in the site.toml that fedecg-client init writes"


def test_what_a_whole_section_breaks_is_said_without_repeating_the_section(tmp_path: Path) -> None:
    file = write(tmp_path, '[federation]\nalgorithm = "scaffold"\n')
    with pytest.raises(SettingsError, match='expected optimizer = "sgd"') as caught:
        load_study(file)
    assert "found {" not in str(caught.value)
    with pytest.raises(SettingsError, match=r"seed: .*\(found -1\)"):
        load_study(write(tmp_path, "seed = -1"))


def test_infonce_is_refused_where_patients_are_private() -> None:
    private = {"mode": "sample", "sums": "noised"}
    with pytest.raises(
        SettingsError, match="infonce couples the records of a batch, so that no record's share"
    ):
        parse_settings(StudySettings, {"privacy": private, "align": {"loss": "infonce"}})
    for loss in ("bank", "paper"):
        parse_settings(StudySettings, {"privacy": private, "align": {"loss": loss}})


@pytest.mark.parametrize(
    ("sections", "instead", "why"),
    [
        (
            {"survival": {"loss": "cox-batch"}},
            'survival.loss = "cox-pooled" or "grouped"',
            "patients of a batch",
        ),
        (
            {"survival": {"loss": "cox-site"}},
            'survival.loss = "cox-pooled" or "grouped"',
            "patients of a site",
        ),
        ({"align": {"targets": "shuffled"}}, 'align.targets = "stated"', "statements of a site's records"),
        ({"model": {"preset": "paper"}}, 'model.preset = "fedecg"', "BatchNorm couples the patients"),
    ],
)
def test_what_couples_patients_is_refused_where_they_are_private(sections, instead: str, why: str) -> None:
    with pytest.raises(SettingsError, match="FECG-103") as refused:
        parse_settings(StudySettings, {"privacy": {"mode": "sample", "sums": "noised"}, **sections})
    assert instead in str(refused.value)
    assert why in str(refused.value)
    parse_settings(StudySettings, sections)


def test_class_weights_belong_to_the_bank_loss() -> None:
    for loss in ("paper", "infonce"):
        with pytest.raises(SettingsError, match='expected class-weights = "none" unless loss = "bank"'):
            parse_settings(StudySettings, {"align": {"loss": loss, "class-weights": "public"}})


def test_reports_of_a_site_stand_in_its_cohort_table_unless_named(tmp_path: Path) -> None:
    base = 'name = "a"\nstore = "store"\ncohort = "tables/cohort.csv"\n'
    file = tmp_path / "site.toml"
    file.write_text(base)
    assert load_site(file).text is None
    file.write_text(base + '[text]\nencoder = "model"\n')
    text = load_site(file).text
    assert text is not None
    assert (text.encoder, text.reports) == (str(tmp_path / "model"), str(tmp_path / "tables/cohort.csv"))
    file.write_text(base + '[text]\nencoder = "/models/bert"\nreports = "said.csv"\nmix = 1.0\n')
    text = load_site(file).text
    assert text is not None
    assert (text.encoder, text.reports, text.mix) == ("/models/bert", str(tmp_path / "said.csv"), 1.0)
    file.write_text(base + '[text]\nencoder = ""\nmix = 1.5\ntemperature = 0.0\n')
    with pytest.raises(SettingsError, match="found 3 problem") as refused:
        load_site(file)
    assert all(key in str(refused.value) for key in ("text.encoder", "text.mix", "text.temperature"))


def test_a_band_above_half_the_sampling_rate_is_refused() -> None:
    with pytest.raises(SettingsError, match="highpass-hz < lowpass-hz < rate-hz / 2"):
        parse_settings(StudySettings, {"signals": {"lowpass-hz": 50.0}})


def test_mu_without_fedprox_is_refused() -> None:
    with pytest.raises(SettingsError, match="proximal-mu > 0 with algorithm"):
        parse_settings(StudySettings, {"federation": {"proximal-mu": 0.1}})
    with pytest.raises(SettingsError, match="proximal-mu > 0 with algorithm"):
        parse_settings(StudySettings, {"federation": {"algorithm": "fedprox"}})


def test_overrides_win_and_bare_words_are_strings(tmp_path: Path) -> None:
    file = write(tmp_path, "seed = 1\n[survival]\nrounds = 3\n")
    settings = load_study(
        file, ["survival.loss=cox-batch", "survival.rounds=7", "seed=5", "align.learning-rate=0.01"]
    )
    assert (settings.survival.loss, settings.survival.rounds, settings.seed) == ("cox-batch", 7, 5)
    assert settings.align.learning_rate == 0.01


@pytest.mark.parametrize("override", ["survival.loss", "=3", "survival.=3", ".x=1"])
def test_an_override_that_is_not_key_value_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(SettingsError, match="FECG-104"):
        load_study(write(tmp_path, ""), [override])


def test_an_override_below_a_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="FECG-104.*a key below a value"):
        load_study(write(tmp_path, "seed = 1"), ["seed.x=1"])


def test_a_missing_file_and_bad_toml_have_codes_and_no_folder_names(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"FECG-101 none\.toml: found no such file") as caught:
        load_study(tmp_path / "none.toml")
    assert str(tmp_path) not in str(caught.value)
    with pytest.raises(SettingsError, match="FECG-102"):
        load_study(write(tmp_path, "a = = 1"))


def test_the_hash_depends_on_values_and_not_on_their_order(tmp_path: Path) -> None:
    one = load_study(write(tmp_path, "seed = 1\n[data.sites]\na = 5\nb = 6\n"))
    two = load_study(write(tmp_path, "[data.sites]\nb = 6\na = 5\n"), ["seed=1"])
    assert settings_sha256(one) == settings_sha256(two)
    assert settings_sha256(one) != settings_sha256(load_study(write(tmp_path, "")))


def test_a_sites_paths_are_relative_to_its_own_file(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text('name = "north"\nstore = "store"\ncohort = "/data/cohort.csv"\n')
    site = load_site(file)
    assert (site.store, site.cohort) == (str(tmp_path / "store"), "/data/cohort.csv")


def test_errors_survive_a_process_boundary() -> None:
    import pickle

    error = SettingsError("FECG-103", "x", found="y", expected="z", fix="w")
    back = pickle.loads(pickle.dumps(error))
    assert isinstance(back, FedecgError)
    assert (str(back), back.code) == (str(error), "FECG-103")


def test_nesting_without_end_and_numbers_beyond_all_bounds_are_refused(tmp_path: Path) -> None:
    for text in ("a = " + "[" * 3000, "a = " + "9" * 5000):
        with pytest.raises(SettingsError, match="FECG-102"):
            load_study(write(tmp_path, text))


def test_an_override_of_two_lines_is_one_value_and_so_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"FECG-103[\s\S]*seed"):
        load_study(write(tmp_path, ""), ["seed=3\nname=4"])
