"""Inference on scans whose header or content is wrong: refused, warned of, or right."""

import itertools
import json
import logging

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from ignite.engine import Events

from rare_unet_networks.bundle import find_doubt_limits

from .conftest import DATA, SAMPLE, needs_data, run

SCAN = SAMPLE / "Task04_Hippocampus" / "imagesTr" / "hippocampus_067.nii.gz"
LABEL = SAMPLE / "Task04_Hippocampus" / "labelsTr" / "hippocampus_067.nii.gz"
DOUBT, BORDER = "the network doubts its prediction", "touches the border"
# Axes of the content that the header calls right, anterior, superior, and whether each runs the other way. A scan
# mirrored left to right shows the hippocampus of the other side, and is right.
AXES = [
    (axes, flips)
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
    if axes != (0, 1, 2) or flips[1:] != (1, 1)
]


@pytest.fixture(scope="module")
def image():
    return nib.as_closest_canonical(nib.load(SCAN)).get_fdata(dtype=np.float32)


def save(path, data, affine=None):
    affine = np.eye(4) if affine is None else affine
    nib.save(nib.Nifti1Image(np.ascontiguousarray(data, dtype=np.float32), affine), path)


def infer(folder, **options):
    """Reviews by case, as the prediction's metadata has them, of all scans of a folder."""
    workflow = run("inference.json", run=False, input=str(folder), output_dir=str(folder / "out"), **options)
    evaluator, reviews = workflow.parser.get_parsed_content("evaluator"), {}

    def note(engine):
        for item in engine.state.output or []:
            name = str(item["image"].meta["filename_or_obj"]).rpartition("/")[2].removesuffix(".nii.gz")
            assert isinstance(item["pred"].meta["doubt"], float)
            reviews[name] = item["pred"].meta["review"]

    evaluator.add_event_handler(Events.ITERATION_COMPLETED, note)
    workflow.run()
    return reviews, evaluator.failures


@pytest.mark.slow
def test_every_wrong_order_of_axes_is_to_be_reviewed_and_right_scans_are_not(tmp_path, image):
    assert len(AXES) == 46
    save(tmp_path / "right.nii.gz", image)
    save(tmp_path / "mirrored.nii.gz", image[::-1])
    save(tmp_path / "inverted.nii.gz", image.max() - image)
    for axes, flips in AXES:
        name = "wrong_" + "".join("-+"[f > 0] + str(a) for a, f in zip(axes, flips))
        save(tmp_path / f"{name}.nii.gz", image.transpose(axes)[tuple(slice(None, None, f) for f in flips)])
    reviews, failures = infer(tmp_path)
    assert not failures and len(reviews) == 49
    assert {name for name, reasons in reviews.items() if not reasons} == {"right", "mirrored"}
    assert all(DOUBT in " ".join(reasons) for name, reasons in reviews.items() if name not in ("right", "mirrored"))


def test_cut_oblique_and_coarse_crops_are_to_be_reviewed(tmp_path, image, caplog):
    labels = np.argwhere(nib.as_closest_canonical(nib.load(LABEL)).get_fdata() > 0)
    middle = (labels.min(axis=0) + labels.max(axis=0)) // 2
    for axis in range(3):
        save(tmp_path / f"cut_{axis}.nii.gz", image.take(range(middle[axis]), axis=axis))
    turned = nib.affines.from_matvec(nib.eulerangles.euler2mat(0, 0, np.deg2rad(25)))
    save(tmp_path / "oblique.nii.gz", image, turned)
    thick = image[:, :, : image.shape[2] // 12 * 12].reshape(*image.shape[:2], -1, 12).mean(axis=3)
    save(tmp_path / "thick.nii.gz", thick, np.diag([1.0, 1, 12, 1]))
    with caplog.at_level(logging.WARNING):
        reviews, failures = infer(tmp_path)
    assert not failures and len(reviews) == 5
    for axis in range(3):
        assert BORDER in " ".join(reviews[f"cut_{axis}"])
    assert any("turned by 25 degrees" in reason for reason in reviews["oblique"])
    assert any("coarser than the coarsest level's" in reason for reason in reviews["thick"])
    for position, (name, reasons) in enumerate(sorted(reviews.items()), start=1):
        (line,) = [message for message in caplog.messages if message.startswith(f"{position} of 5: {name}: ")]
        assert f"; to be reviewed: {'; '.join(reasons)}" in line
    assert len(caplog.messages) == 5 + 1 + 1  # the scans, their number, and MONAI on its log


@pytest.mark.parametrize("grid, name", [("scan", "scan_seg.nii.gz"), ("fine", "scan_fine_seg.nii.gz")])
def test_a_prediction_lies_on_its_scan_for_itk_where_the_forms_differ(tmp_path, image, grid, name):
    """Centres of mass of the structure at 1 mm and at 4 mm, in the space of the scan's sform and of its qform."""
    for step in (1, 4):
        folder = tmp_path / str(step)
        folder.mkdir()
        size = [n // step for n in image.shape]
        data = image[tuple(slice(0, n * step) for n in size)]
        data = data.reshape([v for n in size for v in (n, step)]).mean(axis=(1, 3, 5))
        scan = nib.Nifti1Image(data, None)
        scan.set_qform(nib.affines.from_matvec(np.diag([float(step)] * 3), [(step - 1) / 2] * 3), code=1)
        scan.set_sform(nib.affines.from_matvec(np.diag([float(step)] * 3), [(step - 1) / 2 - 90] * 3), code=4)
        nib.save(scan, folder / "scan.nii.gz")
        reviews, _ = infer(folder, grid=grid)
        assert "the header contradicts itself by up to 156 mm" in " ".join(reviews["scan"])
    centres = []
    for step in (1, 4):
        saved = nib.load(tmp_path / str(step) / "out" / name)
        assert (int(saved.header["sform_code"]), int(saved.header["qform_code"])) == (4, 1)
        centre = np.argwhere(saved.get_fdata() > 0).mean(axis=0)
        centres.append([nib.affines.apply_affine(form, centre) for form in (saved.get_sform(), saved.get_qform())])
        label, scan = (sitk.ReadImage(str(tmp_path / str(step) / p)) for p in (f"out/{name}", "scan.nii.gz"))
        corner = [(a / b - 1) / 2 for a, b in zip(scan.GetSpacing(), label.GetSpacing())]  # of the scan's first voxel
        expected = label.TransformContinuousIndexToPhysicalPoint(corner)
        np.testing.assert_allclose(expected, scan.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(centres[0], centres[1], atol=1.5)


def test_logits_that_are_not_finite_fail_their_case_alone(tmp_path, image):
    save(tmp_path / "scan.nii.gz", image)
    broken = torch.load(SAMPLE.parent / "models" / "model.pt", weights_only=True)
    broken["heads.0.conv.weight"] = broken["heads.0.conv.weight"].float() * 1e38  # finite, but its sums are not
    torch.save(broken, tmp_path / "broken.pt")
    reviews, failures = infer(tmp_path, checkpoint=str(tmp_path / "broken.pt"))
    assert not reviews and not list((tmp_path / "out").glob("*.nii.gz"))
    ((name, reason),) = failures
    assert name.endswith("scan.nii.gz") and reason.startswith("the network's output has values that are NaN")


@needs_data
def test_limits_are_found_from_validation_volumes(tmp_path):
    splits = tmp_path / "splits.json"
    splits.write_text(json.dumps({"validation": ["hippocampus_006", "hippocampus_067"]}))
    files = ("inference.json", "evaluate.json")
    workflow = run(
        *files, run=False, dataset_dir=str(DATA), splits_file=str(splits), output_dir=str(tmp_path), val_levels=[0, 1]
    )
    levels, evaluator = (workflow.parser.get_parsed_content(key) for key in ("levels", "evaluator"))
    limits = find_doubt_limits(evaluator, levels, tmp_path / "limits.json")
    assert json.loads((tmp_path / "limits.json").read_text()) == {"doubt_limit": limits}
    # 1.5 times the larger doubt of the two: 0.156 and 0.167 at 1 mm, 0.185 and 0.205 at 2 mm.
    assert limits == [pytest.approx(0.25, abs=0.011), pytest.approx(0.31, abs=0.011), None, None]
