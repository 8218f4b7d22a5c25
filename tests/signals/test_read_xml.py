"""CardioSoft, MUSE, Sierra and aECG written from their documented structure: values, variants, and broken files."""

import numpy as np
import pytest
import xmltodict
from ecgdatakit import FileParser
from writers_vendor import EIGHT, aecg, cardiosoft, muse, rows_of, sierra, whole_counts

from fedecg.errors import SignalError
from fedecg.signals import LEADS, assess, read_median, read_recording

COUNTS = whole_counts()
BEAT = whole_counts(600, seed=1)


@pytest.fixture
def file(tmp_path):
    def write(content: bytes, name: str = "patient-4711.xml"):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


def refusal(path, read=read_recording) -> SignalError:
    with pytest.raises(SignalError) as caught:
        read(path)
    assert "4711" not in str(caught.value)
    return caught.value


def test_cardiosoft_equals_what_the_published_reader_makes_of_it(file):
    path = file(cardiosoft(COUNTS, BEAT))
    strip = xmltodict.parse(path.read_bytes())["CardiologyXML"]["StripData"]
    published = np.array([[int(x) for x in wave["#text"].split(",")] for wave in strip["WaveformData"]])
    recording = read_recording(path)
    np.testing.assert_allclose(
        recording.signal_mv, published * float(strip["Resolution"]["#text"]) / 1000, atol=1e-5
    )
    assert (recording.rate_hz, recording.kind) == (500, "rhythm")
    beat = read_median(path)
    np.testing.assert_allclose(beat.signal_mv, BEAT * 0.005, atol=1e-5)
    assert (beat.rate_hz, beat.kind) == (500, "median")


@pytest.mark.parametrize("name", ["ecg.xml", "ecg", "ecg.txt", "ecg.dat", "ecg.hea"])
def test_a_format_is_known_by_its_content_whatever_its_name(file, name):
    assert read_recording(file(cardiosoft(COUNTS), name)).signal_mv.shape == COUNTS.shape


def test_cardiosoft_leads_in_any_order_and_case(file):
    leads = [lead.upper() for lead in reversed(LEADS)]
    recording = read_recording(file(cardiosoft(COUNTS[::-1], leads=leads)))
    np.testing.assert_allclose(recording.signal_mv, COUNTS * 0.005, atol=1e-5)


def test_a_cardiosoft_median_that_does_not_fill_its_window_has_gaps(file):
    beat = BEAT.copy()
    beat[:, 500:] = -32768
    read = read_median(file(cardiosoft(COUNTS, beat)))
    assert np.isnan(read.signal_mv[:, 500:]).all()
    assert np.isfinite(read.signal_mv[:, :500]).all()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            cardiosoft(COUNTS, resolution=""),
            "FECG-271 CardioSoft XML file: found no resolution; expected the ampl",
        ),
        (
            cardiosoft(COUNTS, resolution='<Resolution units="uVperLsb">0</Resolution>'),
            "FECG-271 CardioSoft XML file: found no resolution",
        ),
        (
            cardiosoft(COUNTS, resolution='<Resolution units="mmHg">5</Resolution>'),
            "FECG-284 CardioSoft XML file: found a resolution in another unit; expected uVperLsb. Export the ECG anoth",
        ),
        (cardiosoft(COUNTS, rate=""), "FECG-277 CardioSoft XML file: found no sampling rate in Hz"),
        (
            cardiosoft(COUNTS, rate="<SampleRate>0</SampleRate>"),
            "FECG-211 recording: found a sampling rate of 0 Hz",
        ),
        (
            cardiosoft(COUNTS, rate="<SampleRate>nan</SampleRate>"),
            "FECG-211 recording: found a sampling rate of nan",
        ),
        (
            cardiosoft(COUNTS[:8], leads=LEADS[:8]),
            "FECG-210 leads: found 8 of 12 leads, without V3, V4, V5, V6",
        ),
        (cardiosoft(COUNTS, leads=["I", *LEADS[:-1]]), "FECG-209 leads: found 1 lead"),
        (
            cardiosoft(COUNTS).replace(b"StripData", b"OtherData"),
            "FECG-282 CardioSoft XML file: found no rhythm strip",
        ),
        (
            cardiosoft(COUNTS).replace(b'lead="V6">', b'lead="V6">12,'),
            "FECG-277 CardioSoft XML file: found 12 leads, ",
        ),
        (
            cardiosoft(COUNTS).replace(b'lead="V6">', b'lead="V6">x'),
            "FECG-277 CardioSoft XML file: found samples that",
        ),
        (
            cardiosoft(COUNTS).replace(b">2000<", b">5000<"),
            "FECG-277 CardioSoft XML file: found 2000 samples a lead wh",
        ),
        (
            cardiosoft(COUNTS)[:-300],
            "FECG-277 XML file: found text that is not well-formed; expected a whole file",
        ),
        (
            b"<Patients><Name>x</Name></Patients>",
            "FECG-273 record: found an XML file of another kind; expected WFDB",
        ),
    ],
)
def test_a_broken_cardiosoft_file_is_refused_with_its_reason(file, content, text):
    assert str(refusal(file(content))).startswith(text)


def test_a_cardiosoft_file_without_median_beats_says_so(file):
    path = file(cardiosoft(COUNTS))
    assert str(refusal(path, read_median)) == (
        "FECG-282 CardioSoft XML file: found no median beat in it; expected a median beat that the cardiograph stored. "
        "Export the ECG with its median beats, or let fedecg compute them from the strip."
    )


def test_muse_with_a_stray_ampersand_equals_ecgdatakit_without_it(file):
    counts, beat = rows_of(COUNTS, EIGHT), rows_of(BEAT, EIGHT)
    path = file(muse(counts, beat))
    clean = FileParser.parse(file(muse(counts, beat, site="St. Mary"), "clean.xml"))
    recording = read_recording(path)
    for leads, read in ((clean.leads, recording), (clean.median_beats, read_median(path))):
        for lead in leads:
            np.testing.assert_allclose(read.signal_mv[LEADS.index(lead.label)], lead.samples, atol=1e-5)
    assert len(clean.leads) == 8
    assert recording.rate_hz == 500
    assert not assess(recording).einthoven.any()  # the four derived leads obey
    np.testing.assert_allclose(recording.signal_mv[2], (counts[1] - counts[0]) * 4.88e-3, atol=1e-4)


def test_muse_with_all_twelve_leads_in_millivolts(file):
    recording = read_recording(file(muse(COUNTS, leads=LEADS, per_bit="0.005", unit="MILLIVOLTS")))
    np.testing.assert_allclose(recording.signal_mv, COUNTS * 0.005, atol=1e-5)


def test_a_median_is_never_taken_for_a_rhythm_strip(file):
    content = muse(rows_of(COUNTS, EIGHT), rows_of(BEAT, EIGHT)).replace(b">Rhythm<", b">Other<")
    assert refusal(file(content)).code == "FECG-282"
    assert read_median(file(content)).signal_mv.shape == (12, 600)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            muse(rows_of(COUNTS, EIGHT), per_bit="0"),
            "FECG-271 GE MUSE XML file: found leads without LeadAmplitudeUnits",
        ),
        (muse(rows_of(COUNTS, EIGHT), unit="ADC"), "FECG-207 units: found 8 of 8 leads in an unknown unit"),
        (
            muse(rows_of(COUNTS, EIGHT)).replace(b"Size>2<", b"Size>3<"),
            "FECG-284 GE MUSE XML file: found samples of an",
        ),
        (
            muse(rows_of(COUNTS, EIGHT)).replace(b"<WaveFormData>", b"<WaveFormData>!"),
            "FECG-277 GE MUSE XML file: foun",
        ),
        (
            muse(rows_of(COUNTS, EIGHT)).replace(b">2000<", b">9999<", 1),
            "FECG-277 GE MUSE XML file: found 2000 sample",
        ),
        (
            muse(rows_of(COUNTS, EIGHT)).replace(b"SampleBase", b"Sampled"),
            "FECG-277 GE MUSE XML file: found no sampling",
        ),
        (
            muse(rows_of(COUNTS, EIGHT)).replace(b"nt>0</SampleE", b"nt>99</SampleE"),
            "FECG-277 GE MUSE XML file: found",
        ),
        (
            muse(rows_of(COUNTS, EIGHT)).replace(b"LeadData", b"LeadDate"),
            "FECG-277 GE MUSE XML file: found 0 leads",
        ),
    ],
)
def test_a_broken_muse_file_is_refused_with_its_reason(file, content, text):
    assert str(refusal(file(content))).startswith(text)


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;">]>',
        '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE x [<!ENTITY % p SYSTEM "http://127.0.0.1/x.dtd"> %p;]>',
    ],
)
def test_entities_are_refused_and_never_expanded(file, doctype):
    content = muse(rows_of(COUNTS, EIGHT), doctype=doctype, site="&a;" if "ENTITY a" in doctype else "x")
    assert str(refusal(file(content))).startswith("FECG-283 XML file: found declarations of entities")


def test_a_tree_that_would_outgrow_its_file_is_refused_before_it_is_built(file):
    error = refusal(file(b"<RestingECG>" + b"<a/>" * 300_000 + b"</RestingECG>"))
    assert str(error).startswith(
        "FECG-278 XML file: found more tags and attributes than an ECG has; expected an ECG of"
    )


def test_latin_1_bytes_in_a_file_that_says_utf_8_are_read(file):
    content = muse(rows_of(COUNTS, EIGHT), site="Klinik").replace(
        b"Klinik", "Universit\u00e4t".encode("latin-1")
    )
    assert read_recording(file(content)).signal_mv.shape == COUNTS.shape


def test_aecg_equals_ecgdatakit_and_its_documented_formula(file):
    path = file(aecg(COUNTS))
    recording = read_recording(path)
    np.testing.assert_allclose(recording.signal_mv, COUNTS * 0.0025 + 1.0, atol=1e-4)
    for lead, row in zip(FileParser.parse(path).leads, recording.signal_mv, strict=True):
        np.testing.assert_allclose(row, lead.samples, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"scale": ""}, "FECG-271 HL7 aECG file: found a lead without scale"),
        (
            {"scale": '<scale value="2.5" unit="mmHg"/>'},
            "FECG-284 HL7 aECG file: found a lead in another unit than volt",
        ),
        (
            {"scale": '<scale value="x" unit="uV"/>'},
            "FECG-277 HL7 aECG file: found a scale, origin or interval that",
        ),
        ({"increment": ""}, "FECG-277 HL7 aECG file: found no sampling interval"),
        (
            {"code": "OTHER"},
            "FECG-282 HL7 aECG file: found no rhythm strip in it; expected consecutive beats of all",
        ),
        ({"leads": [*LEADS[:-1], "CM5"]}, "FECG-208 leads: found 1 of 12 leads with an unknown name"),
    ],
)
def test_a_broken_aecg_is_refused_with_its_reason(file, change, text):
    assert str(refusal(file(aecg(COUNTS, **change)))).startswith(text)


def test_an_aecg_whose_leads_differ_in_length_is_refused(file):
    content = aecg(COUNTS).replace(b"<digits>", b"<digits>7 ", 1)
    assert str(refusal(file(content))).startswith(
        "FECG-277 HL7 aECG file: found 12 leads, empty or not all of the same"
    )


def test_sierra_without_packing_in_utf_16(file):
    recording = read_recording(file(sierra(COUNTS)))
    np.testing.assert_allclose(recording.signal_mv, COUNTS * 0.005, atol=1e-5)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            sierra(COUNTS, packed="ZIP"),
            "FECG-284 Philips Sierra XML file: found samples packed another way; expected XLI",
        ),
        (
            sierra(COUNTS, packed="XLI"),
            "FECG-277 Philips Sierra XML file: found a lead that is cut off, after",
        ),
        (
            sierra(COUNTS, version="2.0"),
            "FECG-284 Philips Sierra XML file: found another type or version of document",
        ),
        (sierra(COUNTS, resolution=""), "FECG-271 Philips Sierra XML file: found no resolution"),
        (
            sierra(COUNTS).replace("4000".encode("utf-16-le"), "4002".encode("utf-16-le")),
            "FECG-277 Philips Sierra XML",
        ),
    ],
)
def test_a_broken_sierra_file_is_refused_with_its_reason(file, content, text):
    assert str(refusal(file(content))).startswith(text)


def test_packed_samples_that_point_nowhere_are_refused(data_root, file):
    content = (data_root / "vendor/philips_sierra/repbeats_example.xml").read_bytes()
    at = content.index(b">7gUAAAE") + 40
    broken = content[:at] + b"/////" + content[at + 5 :]
    assert refusal(file(broken)).code == "FECG-277"
