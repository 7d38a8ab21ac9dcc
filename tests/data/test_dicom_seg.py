"""A label map as DICOM-SEG of its series: read back, it has the same voxels at the same places, and coded segments."""

import json

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine

from rare_unet_networks.data import dicom_seg
from rare_unet_networks.data.dicom import read_headers
from rare_unet_networks.data.dicom_seg import on_slices, series_affine, write_dicom_seg
from rare_unet_networks.data.segment_codes import Segment, read_codes, segment_of

from ..bundles.conftest import BUNDLES
from .scans import write_series
from .test_other_formats import OBLIQUE

pydicom = pytest.importorskip("pydicom", reason="DICOM needs pydicom")
hd = pytest.importorskip("highdicom", reason="DICOM-SEG needs highdicom (extra dicom)")
VOXELS = np.zeros((7, 6, 9), np.int16)
LABELS = np.zeros(VOXELS.shape, np.uint8)
LABELS[3:6, 2:4, 5:8], LABELS[1, 1, 1], LABELS[0, 0, 0] = 1, 2, 2
AFFINES = {"oblique": OBLIQUE, "sagittal": OBLIQUE[:, [2, 0, 1, 3]], "slices to the left": np.diag([-1.0, 2, 3, 1])}
CODES = {name: read_codes(bundle / "configs/segment_codes.json") for name, bundle in BUNDLES.items()}
HIPPOCAMPUS, BRAIN = CODES["hippocampus_mri_segmentation"], CODES["brain_tumor_mri_segmentation"]
SEGMENTS = {1: segment_of("left anterior", None, HIPPOCAMPUS), 2: segment_of("posterior", "right", HIPPOCAMPUS)}


def series(folder, affine=OBLIQUE, **tags):
    write_series(folder, VOXELS, affine, **tags)
    return sorted(map(str, folder.iterdir()))


def write(folder, label_map=None, files=None, segments=SEGMENTS):
    label_map = nib.Nifti1Image(LABELS, OBLIQUE) if label_map is None else label_map
    write_dicom_seg(
        folder / "a.dcm", label_map, [files or series(folder / "a")], segments, {"weights_sha256": "0" * 64}
    )
    return folder / "a.dcm"


def places(labels, affine, index):
    """World coordinates of a class, sorted."""
    points = apply_affine(affine, np.argwhere(labels == index)).round(3) + 0.0
    return points[np.lexsort(points.T)]


def read_by_hand(path):
    """World coordinates (RAS) of each segment, from the bits, positions and segment numbers of the frames alone."""
    data = pydicom.dcmread(path)
    bits = np.unpackbits(np.frombuffer(data.PixelData, np.uint8), bitorder="little")
    frames = bits[: data.NumberOfFrames * data.Rows * data.Columns].reshape(-1, data.Rows, data.Columns)
    shared = data.SharedFunctionalGroupsSequence[0]
    axes = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    rows, columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    points = {}
    for frame, group in zip(frames, data.PerFrameFunctionalGroupsSequence):
        start = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        row, column = np.nonzero(frame)
        lps = start + np.outer(column * columns, axes[0]) + np.outer(row * rows, axes[1])
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        points.setdefault(number, []).append(lps * [-1, -1, 1])
    points = {number: np.concatenate(parts).round(3) + 0.0 for number, parts in points.items()}
    return {number: part[np.lexsort(part.T)] for number, part in points.items()}


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("axes", ["LPS", "RAS", "SAL"])  # in which order the label map is stored
def test_read_back_it_has_the_voxels_of_the_label_map_at_their_places(tmp_path, name, axes):
    affine = AFFINES[name]
    image = nib.Nifti1Image(LABELS, affine)
    transform = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(axes))
    path = write(tmp_path, image.as_reoriented(transform), series(tmp_path / "a", affine))
    volume = hd.seg.segread(path).get_volume(combine_segments=True)
    to_ras = np.diag([-1.0, -1, 1, 1]) @ volume.affine
    by_hand = read_by_hand(path)
    for index, count in ((1, 18), (2, 2)):
        expected = places(LABELS, affine, index)
        assert len(expected) == count
        np.testing.assert_allclose(places(volume.array, to_ras, index), expected, atol=2e-3)
        np.testing.assert_allclose(by_hand[index], expected, atol=2e-3)


def test_segments_are_coded_and_say_which_program_made_them(tmp_path):
    data = pydicom.dcmread(write(tmp_path))
    assert [s.SegmentLabel for s in data.SegmentSequence] == ["left anterior", "right posterior"]
    kinds = [s.SegmentedPropertyTypeCodeSequence[0] for s in data.SegmentSequence]
    assert [(k.CodeValue, k.CodingSchemeDesignator) for k in kinds] == [("5366008", "SCT")] * 2
    parts = [[m.CodeMeaning for m in k.SegmentedPropertyTypeModifierCodeSequence] for k in kinds]
    assert parts == [["Left", "Anterior"], ["Right", "Posterior"]]
    algorithm = data.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmName == "RARE-UNet" and algorithm.AlgorithmParameters == "weights_sha256=" + "0" * 64
    assert data.Modality == "SEG" and data.PatientID == "1" and data.SeriesNumber == 1200
    used = {r.ReferencedSOPInstanceUID for r in data.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert used <= {h.SOPInstanceUID for h in read_headers(sorted(map(str, (tmp_path / "a").iterdir())))}


@pytest.mark.parametrize("codes", CODES.values(), ids=list(CODES))
def test_the_codes_are_those_of_the_dicom_standard(codes):
    from pydicom.sr._concepts_dict import concepts

    for entries in codes.values():
        for value, scheme, meaning in [v for k, v in entries.items() if k != "modifiers"] + [*entries["modifiers"]]:
            meanings = {words for names in concepts[scheme].values() for words, _ in [names.get(value, ("", ""))]}
            assert meaning in meanings, (value, meaning)


def test_missing_tags_of_the_patient_are_left_empty(tmp_path):
    tags = ("PatientName", "PatientID", "PatientBirthDate", "StudyID", "StudyDate", "StudyTime", "AccessionNumber")
    tags += ("ReferringPhysicianName", "FrameOfReferenceUID", "StudyInstanceUID", "SliceThickness", "SeriesNumber")
    tags += ("PositionReferenceIndicator", "Manufacturer")
    files = series(tmp_path / "a", PatientSex="anonymous", **dict.fromkeys(tags))
    data = pydicom.dcmread(write(tmp_path, files=files))
    assert data.PatientID == data.PatientSex == data.StudyID == "" and str(data.PatientName) == ""
    assert data.StudyInstanceUID and data.FrameOfReferenceUID and data.SeriesNumber == 900
    assert sum(map(len, read_by_hand(tmp_path / "a.dcm").values())) == 20


@pytest.mark.filterwarnings("ignore:Invalid value")
def test_dates_that_are_none_and_large_numbers_are_tolerated_and_names_keep_their_letters(tmp_path):
    tags = dict(PatientBirthDate="00000000", StudyDate="unknown", StudyTime="x", SeriesNumber=30000000)
    files = series(tmp_path / "a", PatientName="Müller^Jörg", SpecificCharacterSet="ISO_IR 100", **tags)
    data = pydicom.dcmread(write(tmp_path, files=files))
    assert not data.PatientBirthDate and not data.StudyDate and not data.StudyTime
    assert data.SeriesNumber == 900 and str(data.PatientName) == "Müller^Jörg"


def test_one_side_of_a_head_an_empty_class_and_no_voxel_at_all_can_be_written(tmp_path):
    labels = np.where(LABELS == 1, 3, 0).astype(np.uint8)
    segments = {3: segment_of("right anterior", None, HIPPOCAMPUS), 4: segment_of("right posterior", None, HIPPOCAMPUS)}
    data = pydicom.dcmread(write(tmp_path, nib.Nifti1Image(labels, OBLIQUE), segments=segments))
    assert [s.SegmentNumber for s in data.SegmentSequence] == [1, 2]
    assert {n: len(p) for n, p in read_by_hand(tmp_path / "a.dcm").items()} == {1: 18}
    files = sorted(map(str, (tmp_path / "a").iterdir()))
    write(tmp_path, nib.Nifti1Image(0 * labels, OBLIQUE), files, segments)
    assert sum(map(len, read_by_hand(tmp_path / "a.dcm").values())) == 0


def test_the_series_on_the_grid_of_the_label_map_is_taken(tmp_path):
    other = OBLIQUE.copy()
    other[:3, 3] += 0.5
    two = [series(tmp_path / "moved", other), series(tmp_path / "same")]
    write_dicom_seg(tmp_path / "a.dcm", nib.Nifti1Image(LABELS, OBLIQUE), two, SEGMENTS, {})
    expected = pydicom.dcmread(two[1][0]).SeriesInstanceUID
    assert pydicom.dcmread(tmp_path / "a.dcm").ReferencedSeriesSequence[0].SeriesInstanceUID == expected
    with pytest.raises(ValueError, match=r"a\.dcm: expected a DICOM series on the grid of the label map, .*moved is"):
        write_dicom_seg(tmp_path / "a.dcm", nib.Nifti1Image(LABELS, OBLIQUE), two[:1], SEGMENTS, {})


def test_a_label_map_of_another_size_or_turn_is_on_another_grid(tmp_path):
    headers = read_headers(series(tmp_path / "a"))
    np.testing.assert_allclose(series_affine(headers), OBLIQUE, atol=1e-6)
    assert on_slices(nib.Nifti1Image(LABELS, OBLIQUE), headers).shape == (9, 6, 7)
    assert on_slices(nib.Nifti1Image(LABELS[:-1], OBLIQUE), headers) is None
    assert on_slices(nib.Nifti1Image(LABELS, np.diag([1.0, 1.5, 3, 1])), headers) is None


def test_classes_without_a_code_get_a_private_one():
    assert segment_of("cyst", None, {}) == Segment(
        "cyst", ("91723000", "SCT", "Anatomical Structure"), ("cyst", "99RAREUNET", "cyst")
    )
    assert segment_of("edema", None, BRAIN).region == ("12738006", "SCT", "Brain")
    assert segment_of("left lobe", None, {}).modifiers == (("7771000", "SCT", "Left"),)


@pytest.mark.parametrize(
    "content, reason",
    [
        ([], "expected an object with the codes by class, got a list"),
        ({"a": {"type": ["1", "SCT", "x"]}}, "expected category, type and no more than .* for a"),
        (
            {"a": {"type": ["1", "SCT"], "category": ["1", "SCT", "x"]}},
            r"expected \[value, scheme, meaning\] as a code",
        ),
    ],
)
def test_a_file_of_codes_of_another_form_is_refused(tmp_path, content, reason):
    path = tmp_path / "codes.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"codes\.json: {reason}"):
        read_codes(path)
    assert read_codes(tmp_path / "none.json") == {}


def test_without_highdicom_one_line_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_seg, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"DICOM-SEG needs highdicom: pip install 'rare-unet-networks\[dicom\]'$"):
        write(tmp_path)
