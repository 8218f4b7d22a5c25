"""Files of cardiographs of which no sample is at hand, written from their documented structure.

`count` arguments are integers as a cardiograph stores them, (leads, samples).
"""

import base64
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedecg.signals import LEADS

Counts = NDArray[np.int64]
EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")


def whole_counts(samples: int = 2000, seed: int = 0) -> Counts:
    """(12, samples) counts of 5 µV in which the limb leads obey Einthoven and Goldberger to a count."""
    random = np.random.default_rng(seed)
    one, two, *chest = np.cumsum(random.integers(-9, 10, (8, samples)), axis=1)
    limbs = [one, two, two - one, -(one + two) // 2, one - two // 2, two - one // 2]
    return np.array([*limbs, *chest], dtype=np.int64)


def rows_of(counts: Counts, leads: Sequence[str]) -> Counts:
    return counts[[LEADS.index(lead) for lead in leads]]


def cardiosoft(
    counts: Counts,
    median: Counts | None = None,
    leads: Sequence[str] = LEADS,
    resolution: str = '<Resolution units="uVperLsb">5</Resolution>',
    rate: str = '<SampleRate units="Hz">500</SampleRate>',
    name: str = "M\u00fcller",
) -> bytes:
    """UK Biobank's CardiologyXML (field 20205) in ISO 8859-1."""

    def samples(tag: str, rows: Counts) -> str:
        waves = "".join(
            f'<WaveformData lead="{lead}">{",".join(map(str, row.tolist()))}\n</WaveformData>'
            for lead, row in zip(leads, rows, strict=True)
        )
        return (
            f'<{tag}><NumberOfLeads units="">{len(rows)}</NumberOfLeads>{rate}'
            f'<ChannelSampleCountTotal units="">{rows.shape[1]}</ChannelSampleCountTotal>{resolution}{waves}</{tag}>'
        )

    beats = "" if median is None else samples("MedianSamples", median)
    return (
        f'<?xml version="1.0" encoding="ISO-8859-1"?>\n<CardiologyXML><ObservationType>RestECG</ObservationType>'
        f"<PatientInfo><Name><FamilyName>{name}</FamilyName></Name></PatientInfo>"
        f"<RestingECGMeasurements><DiagnosisVersion></DiagnosisVersion>{beats}</RestingECGMeasurements>"
        f"{samples('StripData', counts)}</CardiologyXML>"
    ).encode("latin-1")


def muse(
    counts: Counts,
    median: Counts | None = None,
    leads: Sequence[str] = EIGHT,
    per_bit: str = "4.88",
    unit: str = "MICROVOLTS",
    site: str = "St. Mary's & Sons",
    doctype: str = '<!DOCTYPE RestingECG SYSTEM "restecg.dtd">',
) -> bytes:
    """GE MUSE's RestingECG with a stray & in the name of the site, as real files have."""

    def wave(kind: str, rows: Counts) -> str:
        return f"""<Waveform><WaveformType>{kind}</WaveformType><WaveformStartTime>0</WaveformStartTime>
<NumberofLeads>{len(rows)}</NumberofLeads><SampleType>CONTINUOUS_SAMPLES</SampleType>
<SampleBase>500</SampleBase><SampleExponent>0</SampleExponent>
{"".join(_muse_lead(lead, row, per_bit, unit) for lead, row in zip(leads, rows, strict=True))}</Waveform>"""

    beats = "" if median is None else wave("Median", median)
    return f"""<?xml version="1.0" encoding="UTF-8"?>\n{doctype}
<RestingECG><MuseInfo><MuseVersion>9.0</MuseVersion></MuseInfo>
<TestDemographics><DataType>RESTING</DataType><SiteName>{site}</SiteName></TestDemographics>
{beats}{wave("Rhythm", counts)}</RestingECG>""".encode()


def _muse_lead(lead: str, row: Counts, per_bit: str, unit: str) -> str:
    text = base64.encodebytes(row.astype("<i2").tobytes()).decode()
    return f"""<LeadData><LeadByteCountTotal>{2 * len(row)}</LeadByteCountTotal><LeadTimeOffset>0</LeadTimeOffset>
<LeadSampleCountTotal>{len(row)}</LeadSampleCountTotal>
<LeadAmplitudeUnitsPerBit>{per_bit}</LeadAmplitudeUnitsPerBit><LeadAmplitudeUnits>{unit}</LeadAmplitudeUnits>
<LeadHighLimit>32767</LeadHighLimit><LeadLowLimit>-32768</LeadLowLimit><LeadID>{lead}</LeadID>
<LeadOffsetFirstSample>0</LeadOffsetFirstSample><FirstSampleBaseline>0</FirstSampleBaseline>
<LeadSampleSize>2</LeadSampleSize><LeadOff>FALSE</LeadOff><BaselineSway>FALSE</BaselineSway>
<WaveFormData>{text}</WaveFormData></LeadData>"""


def aecg(
    counts: Counts,
    leads: Sequence[str] = LEADS,
    scale: str = '<scale value="2.5" unit="uV"/>',
    increment: str = '<increment value="0.002" unit="s"/>',
    code: str = "RHYTHM",
) -> bytes:
    """HL7 aECG with one series."""
    sequences = "".join(
        f'<component><sequence><code code="MDC_ECG_LEAD_{lead.upper()}" codeSystem="2.16.840.1.113883.6.24"/>'
        f'<value xsi:type="SLIST_PQ"><origin value="1" unit="mV"/>{scale}'
        f"<digits>{' '.join(map(str, row.tolist()))}</digits></value></sequence></component>"
        for lead, row in zip(leads, counts, strict=True)
    )
    return (
        '<AnnotatedECG xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        f'<component><series><code code="{code}"/><component><sequenceSet><component><sequence>'
        f'<code code="TIME_ABSOLUTE"/><value xsi:type="GLIST_TS"><head value="20021122091000"/>{increment}</value>'
        f"</sequence></component>{sequences}</sequenceSet></component></series></component></AnnotatedECG>"
    ).encode()


def sierra(
    counts: Counts, packed: str = "Uncompressed", resolution: str = "5", version: str = "1.04"
) -> bytes:
    """Philips Sierra XML, its samples not packed."""
    text = base64.b64encode(counts.astype("<i2").tobytes()).decode()
    return (
        '<?xml version="1.0" encoding="utf-16"?><restingecgdata xmlns="http://www3.medical.philips.com">'
        f"<documentinfo><documenttype>PhilipsECG</documenttype><documentversion>{version}</documentversion>"
        "</documentinfo><dataacquisition><signalcharacteristics><samplingrate>500</samplingrate>"
        f"<resolution>{resolution}</resolution><acquisitiontype>10-WIRE</acquisitiontype>"
        "<numberchannelsallocated>12</numberchannelsallocated></signalcharacteristics></dataacquisition>"
        f'<waveforms><parsedwaveforms dataencoding="Base64" compression="{packed}" numberofleads="12" '
        f'leadlabels="{" ".join(LEADS)}" durationperchannel="{counts.shape[1] * 2}">{text}</parsedwaveforms>'
        "</waveforms></restingecgdata>"
    ).encode("utf-16")


def edf(
    counts: Counts,
    labels: Sequence[str] = LEADS,
    unit: str = "uV",
    rate_hz: int = 500,
    rates_hz: Sequence[int] | None = None,
    reserved: str = "",
) -> bytes:
    """EDF with records of one second; a count is 2 µV."""
    rates = list(rates_hz or [rate_hz] * len(labels))
    seconds = counts.shape[1] // rate_hz
    fields = [
        (16, labels), (80, [""] * len(rates)), (8, [unit] * len(rates)), (8, ["-65536"] * len(rates)),
        (8, ["65534"] * len(rates)), (8, ["-32768"] * len(rates)), (8, ["32767"] * len(rates)),
        (80, [""] * len(rates)), (8, list(map(str, rates))), (32, [""] * len(rates)),
    ]  # fmt: skip
    header = f"{'0':<8}{'X X X X':<80}{'Startdate X X X X':<80}01.01.8500.00.00{256 * (len(rates) + 1):<8}"
    header += f"{reserved:<44}{seconds:<8}{1:<8}{len(rates):<4}"
    header += "".join(f"{value:<{width}}" for width, values in fields for value in values)
    body = b"".join(
        row[second * rate : (second + 1) * rate].astype("<i2").tobytes()
        for second in range(seconds)
        for row, rate in zip(counts, rates, strict=True)
    )
    return header.encode("ascii") + body


def dicom(
    counts: Counts,
    names: Sequence[tuple[str, str]],
    path: Path,
    unit: str = "mV",
    sensitivity: str | None = "0.005",
    correction: str = "1",
    baseline: str = "0",
    label: str = "RHYTHM",
) -> Path:
    """A 12-lead ECG object; `names` are (code, meaning) of each channel."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, TwelveLeadECGWaveformStorage

    def coded(value: str, meaning: str) -> Dataset:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "MDC", meaning
        return item

    group, channels = Dataset(), []
    for code, meaning in names:
        channel = Dataset()
        channel.ChannelSourceSequence = [coded(code, meaning)]
        if sensitivity is not None:
            channel.ChannelSensitivity = sensitivity
            channel.ChannelSensitivityUnitsSequence = [coded(unit, unit)]
            channel.ChannelSensitivityCorrectionFactor = correction
            channel.ChannelBaseline = baseline
        channel.WaveformBitsStored = 16
        channels.append(channel)
    group.ChannelDefinitionSequence = channels
    group.WaveformOriginality, group.MultiplexGroupLabel = "ORIGINAL", label
    group.NumberOfWaveformChannels, group.NumberOfWaveformSamples = counts.shape
    group.SamplingFrequency, group.WaveformBitsAllocated = "500", 16
    group.WaveformSampleInterpretation = "SS"
    group.WaveformData = counts.T.astype("<i2").tobytes()
    file = Dataset()
    file.SOPClassUID, file.SOPInstanceUID = TwelveLeadECGWaveformStorage, "1.2.3"
    file.WaveformSequence = [group]
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID, file.file_meta.MediaStorageSOPInstanceUID = (
        file.SOPClassUID,
        "1.2.3",
    )
    file.save_as(path, enforce_file_format=True)
    return path
