"""A whole head through the bundle's commands: four classes on its grid, its record, names and volumes."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import torch

from rare_unet_networks.inferers import Landmarks

from .conftest import BUNDLE, SAMPLE, SHARED, needs, read, run

HEADS = SHARED / "WholeHead"
CROP = SAMPLE / "images/icbm152_left_1mm.nii.gz"
SIZE, LEFT, RIGHT = (
    (150, 110, 90),
    (20, 30, 25),
    (90, 30, 25),
)  # voxels of 1 mm; where the crop and its mirror image lie


class AtTheCrops:
    """Finds the crop and its mirror image where the test has put them."""

    def __call__(self, scan):
        size = np.array(nib.load(CROP).shape)
        points = []
        for start, sign in ((LEFT, 1), (RIGHT, -1)):
            centre = np.array(start) + (size - 1) / 2 - np.array([2.4 * sign, 0.5, 1.6])
            half = np.array([1.2 * sign, 18.6, -8.0]) / 2
            points += [centre + half, centre - half]
        return Landmarks(torch.from_numpy(np.stack(points)), torch.ones(4))


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """The sample's crop and its mirror image in an empty head, stored in LPS order."""
    crop = np.asarray(nib.as_closest_canonical(nib.load(CROP)).dataobj, dtype=np.float32)
    data = np.full(SIZE, crop.min())
    for start, part in ((LEFT, crop), (RIGHT, crop[::-1])):
        data[tuple(slice(s, s + n) for s, n in zip(start, crop.shape))] = part
    path = tmp_path_factory.mktemp("head") / "head.nii.gz"
    nib.save(nib.Nifti1Image(data[::-1, ::-1], np.diag([-1.0, -1, 1, 1])), path)
    return path


def segment(scan, output, **options):
    run("inference.json", input=str(scan), output_dir=str(output), **options)
    name = scan.name.removesuffix(".nii.gz")
    grid = "fine_seg" if options.get("grid") == "fine" else "seg"
    return nib.load(output / f"{name}_{grid}.nii.gz"), json.loads((output / f"{name}_{grid}.json").read_text())


@pytest.fixture(scope="module")
def segmented(head, tmp_path_factory):
    output = tmp_path_factory.mktemp("segmented")
    where = {"_target_": f"{__name__}.AtTheCrops"}
    return output, *segment(head, output, localiser=where)


def test_a_head_gets_four_classes_on_its_own_grid(segmented, head, tmp_path):
    _, image, record = segmented
    assert image.shape == SIZE and np.allclose(image.affine, nib.load(head).affine)
    labels = np.asarray(image.dataobj)[::-1, ::-1]
    _, alone = segment(CROP, tmp_path, side="left")
    for name, volume in alone["volumes"].items():
        for side in ("left", "right"):
            # Not equal, because the box differs from the crop by some mm.
            assert record["volumes"][f"{side} {name}"]["mm3"] == pytest.approx(volume["mm3"], rel=0.1)
    middle = (LEFT[0] + RIGHT[0] + nib.load(CROP).shape[0]) // 2
    assert set(np.unique(labels[:middle])) == {0, 1, 2} and set(np.unique(labels[middle:])) == {0, 3, 4}


def test_its_record_and_tables_have_both_sides(segmented):
    output, image, record = segmented
    volumes, totals = record["volumes"], record["totals"]
    assert record["labels"] == {
        "1": "left anterior",
        "2": "left posterior",
        "3": "right anterior",
        "4": "right posterior",
    }
    assert totals["left"]["mm3"] == volumes["left anterior"]["mm3"] + volumes["left posterior"]["mm3"]
    assert (
        totals["both"]["mm3"] == totals["left"]["mm3"] + totals["right"]["mm3"] == (np.asarray(image.dataobj) > 0).sum()
    )
    assert abs(record["asymmetry"]) < 10 and record["head"]["sides"] == ["left", "right"]
    rows = {row["class"]: row for row in read(output / "volumes.csv")}
    assert list(rows) == [*record["labels"].values(), "left", "right", "both"]
    with open(output / "head_seg.tsv", newline="") as file:
        assert {row["index"]: row["name"] for row in csv.DictReader(file, delimiter="\t")} == record["labels"]


def test_on_the_fine_grid_too(head, tmp_path, segmented):
    image, record = segment(head, tmp_path, localiser={"_target_": f"{__name__}.AtTheCrops"}, grid="fine")
    _, on_scan, _ = segmented
    fine, scan = np.argwhere(np.asarray(image.dataobj) > 0), np.argwhere(np.asarray(on_scan.dataobj) > 0)
    world = [nib.affines.apply_affine(i.affine, v).mean(axis=0) for i, v in ((image, fine), (on_scan, scan))]
    assert np.abs(world[0] - world[1]).max() < 0.1 and len(fine) == len(scan)
    assert record["totals"]["both"]["mm3_fine"] == len(fine)


@needs(HEADS)
@pytest.mark.slow
@pytest.mark.parametrize("name", ["ds000011_sub-05", "ds002748_sub-07"])
def test_both_hippocampi_of_a_real_head_are_found(name, tmp_path):
    image, record = segment(HEADS / "images" / f"{name}.nii.gz", tmp_path)
    labels = np.asarray(image.dataobj)
    others = np.asarray(nib.load(HEADS / "hippocampi" / f"{name}.nii.gz").dataobj)
    for classes, label in (((1, 2), 1), ((3, 4), 2)):
        ours, theirs = np.isin(labels, classes), others == label
        assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) > 0.75
    assert record["head"]["turned"] < 20 and (BUNDLE / "models/localiser.pt").is_file()
