"""What the tumour network's shipped weights do with the phantom and, where they are there, with real scans."""

import json

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import Compose, LoadImaged, SaveImage

from rare_unet_networks.transforms.low_resolution import SimulateLowResolutiond

from .conftest import BRAIN_DATA, BUNDLES, EVALUATE, needs_brain_data, read
from .conftest import run as run_of

BUNDLE = BUNDLES["brain_tumor_mri_segmentation"]
CASE = "BRATS_TCIA02_606_1"  # of the validation cases
MODALITIES = ("flair", "t1", "t1ce", "t2")


def segment(source, output):
    """Label map of the only case in ``source``."""
    run_of("inference.json", bundle=BUNDLE, input=str(source), output_dir=str(output))
    (path,) = output.glob("*_seg.nii.gz")
    return nib.load(path)


def dice(a, b):
    """Of the whole tumour and of each class, none of which may be absent."""
    a, b = (np.asarray(x.dataobj) for x in (a, b))
    assert all(set(range(4)) == set(np.unique(x)) for x in (a, b))
    return [
        2 * (x & y).sum() / (x.sum() + y.sum()) for x, y in [(a > 0, b > 0), *((a == c, b == c) for c in (1, 2, 3))]
    ]


def test_the_phantoms_files_give_a_prediction_on_their_grid_with_its_tumour(tmp_path):
    sample = BUNDLE / "sample"
    prediction = segment(sample / "images", tmp_path / "files")
    label = nib.load(sample / "Task01_BrainTumour" / "labelsTr" / "phantom.nii.gz")
    assert prediction.shape == label.shape and np.allclose(prediction.affine, label.affine)
    assert {r["level"] for r in read(tmp_path / "files" / "volumes.csv")} == {"1"}
    whole = segment(sample / "Task01_BrainTumour" / "imagesTr" / "phantom.nii.gz", tmp_path / "whole")
    assert dice(whole, label)[0] > 0.5
    assert dice(whole, prediction)[0] > 0.8  # the T2w of the files has slices three times as thick


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A real case at 2 mm, and what the network says of it."""
    folder = tmp_path_factory.mktemp("scan")
    read = Compose([LoadImaged("image", ensure_channel_first=True), SimulateLowResolutiond("image")])
    image = read({"image": BRAIN_DATA / "imagesTr" / f"{CASE}.nii.gz", "level": 1})["image"]
    SaveImage(output_ext=".nii.gz", resample=False, print_log=False, channel_dim=0)(image, filename=folder / "scan")
    return nib.load(folder / "scan.nii.gz"), segment(folder / "scan.nii.gz", folder / "prediction")


@needs_brain_data
@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "PIR", "SLA"])
def test_orientation_does_not_change_the_prediction(scan, tmp_path, axcodes):
    image, prediction = scan
    ours = nib.orientations.io_orientation(image.affine)
    turn = nib.orientations.ornt_transform(ours, nib.orientations.axcodes2ornt(axcodes))
    nib.save(image.as_reoriented(turn), tmp_path / "turned.nii.gz")
    turned = segment(tmp_path / "turned.nii.gz", tmp_path / "out")
    back = nib.orientations.ornt_transform(nib.orientations.io_orientation(turned.affine), ours)
    assert min(dice(turned.as_reoriented(back), prediction)) >= 0.99


@needs_brain_data
def test_an_oblique_affine_does_not_change_the_prediction(scan, tmp_path):
    image, prediction = scan
    angle = np.deg2rad(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), turn @ image.affine), tmp_path / "oblique.nii.gz")
    oblique = segment(tmp_path / "oblique.nii.gz", tmp_path / "out")
    assert np.allclose(oblique.affine, turn @ image.affine, atol=1e-4)
    assert min(dice(oblique, prediction)) >= 0.99


@pytest.mark.slow
@needs_brain_data
def test_files_give_the_prediction_of_the_4d_file_and_thick_t2w_slices_nearly(tmp_path):
    """At 1 mm; the T2w's slices become three times as thick."""
    image = nib.load(BRAIN_DATA / "imagesTr" / f"{CASE}.nii.gz")
    data = np.asarray(image.dataobj)[..., :153, :]
    predictions = {}
    for name in ("fine", "mixed"):
        folder = tmp_path / name / "case"
        folder.mkdir(parents=True)
        for i, modality in enumerate(MODALITIES):
            channel, affine = data[..., i].astype(np.float32), image.affine.copy()
            if (name, modality) == ("mixed", "t2"):
                channel = channel.reshape(*channel.shape[:2], -1, 3).mean(axis=-1)
                affine = affine @ np.diag([1, 1, 3, 1])
                affine[:3, 3] += image.affine[:3, 2]  # the centre of the first three slices
            nib.save(nib.Nifti1Image(channel, affine), folder / f"case_{modality}.nii.gz")
        predictions[name] = segment(tmp_path / name, tmp_path / f"{name}_prediction")
    nib.save(nib.Nifti1Image(data, image.affine), tmp_path / "whole.nii.gz")
    assert min(dice(segment(tmp_path / "whole.nii.gz", tmp_path / "whole_prediction"), predictions["fine"])) >= 0.999
    assert dice(predictions["mixed"], predictions["fine"])[0] >= 0.9


@pytest.mark.slow
@needs_brain_data
def test_validation_dice_at_the_coarse_levels_is_that_of_the_documentation(tmp_path):
    """Levels 0 and 1 take most of the time, and are left out."""
    workflow = run_of(*EVALUATE, bundle=BUNDLE, dataset_dir=str(BRAIN_DATA), output_dir=str(tmp_path),
                      val_levels=[2, 3])  # fmt: skip
    assert not workflow.parser.get_parsed_content("evaluator").failures
    documented = json.loads((BUNDLE / "configs/metadata.json").read_text())["eval_metrics"]
    found = {
        f"dice_{r['grid']}_scale_{r['scale']}_{r['class']}": float(r["mean"])
        for r in read(tmp_path / "summary.csv")
        if r["measure"] == "dice" and r["scale"] != "average"
    }
    assert len(found) == 2 * 2 * 7
    assert {key: documented[key] for key in found} == pytest.approx(found, abs=0.003)
