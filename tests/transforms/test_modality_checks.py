"""Modalities in another order, beside each other, blank, or not finite: a brain of four tissues, written here."""

import contextlib
import itertools
import json
import logging

import nibabel as nib
import numpy as np
import pytest
import torch

from rare_unet_networks.data import modality_datalist
from rare_unet_networks.transforms.modalities import LoadModalitiesd
from rare_unet_networks.transforms.modality_checks import modality_warnings
from rare_unet_networks.utils.quality import warnings_of

from ..data.test_modalities import PATTERNS

MODALITIES = ["FLAIR", "T1w", "T1Gd", "T2w"]
FILES = {m: f"{m}.nii.gz" for m in MODALITIES}
# Brightness of fluid, grey and white matter, and vessels, as a radiologist knows them.
TISSUES = {"FLAIR": (20, 100, 80, 60), "T1w": (20, 60, 100, 70), "T1Gd": (20, 60, 100, 250), "T2w": (200, 110, 80, 60)}
SIZE = (40, 48, 40)


def brain():
    """Four modalities, shape (4, *SIZE), with a background of 0."""
    random = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.linspace(-1.3, 1.3, n) for n in SIZE], indexing="ij"))
    radius = np.sqrt((grid**2).sum(0))
    tissue = np.digitize(radius, [0.35, 0.8])  # fluid inside, white matter, grey matter
    tissue = np.choose(tissue, [0, 2, 1])
    tissue[random.random(SIZE) < 0.03] = 3
    image = np.stack([np.array(TISSUES[m])[tissue] for m in MODALITIES]).astype(np.float32)
    image += 8 * random.standard_normal(image.shape).astype(np.float32)
    return np.where(radius < 1, image, 0).astype(np.float32)


IMAGE = torch.from_numpy(brain())


def test_a_right_scan_is_not_warned_of():
    assert modality_warnings(IMAGE, FILES, MODALITIES) == []


@pytest.mark.parametrize("order", [o for o in itertools.permutations(range(4)) if o != (0, 1, 2, 3)])
def test_every_other_order_is_warned_of_by_modality_and_file(order):
    (warning,) = modality_warnings(IMAGE[list(order)], FILES, MODALITIES)
    assert warning.startswith("by their contrast the modalities are in another order")
    for position, source in enumerate(order):
        text = f"{MODALITIES[position]} ({MODALITIES[position]}.nii.gz) looks like {MODALITIES[source]}"
        assert (text in warning) == (position != source)


def test_a_modality_that_lies_elsewhere_is_warned_of_and_only_that_one():
    image = IMAGE.clone()
    image[3] = torch.roll(image[3], 6, 0)
    (warning,) = modality_warnings(image, FILES, MODALITIES)
    assert warning.startswith("T2w (T2w.nii.gz) does not lie on the other modalities")


def test_fields_of_view_that_differ_are_warned_of():
    image = IMAGE.clone()
    image[1, :, :, 20:] = 0
    (warning,) = modality_warnings(image, FILES, MODALITIES)
    assert warning.startswith("T1w (T1w.nii.gz) does not lie on the other modalities")


def test_a_blank_modality_is_warned_of_and_a_missing_one_is_not():
    image = IMAGE.clone()
    image[2] = 7
    (warning,) = modality_warnings(image, FILES, MODALITIES)
    assert warning == "T1Gd (T1Gd.nii.gz) is blank: all its voxels are 7"
    assert modality_warnings(image, {m: f for m, f in FILES.items() if m != "T1Gd"}, MODALITIES) == []


@pytest.mark.parametrize("scale, offset", [(1, 0), (3, -7)])
def test_one_image_for_two_modalities_is_warned_of(scale, offset):
    image = IMAGE.clone()
    image[2] = scale * image[1] + offset
    assert modality_warnings(image, FILES, MODALITIES) == ["T1w (T1w.nii.gz) and T1Gd (T1Gd.nii.gz) are the same image"]


def test_other_modalities_are_checked_for_their_place_alone():
    names = ["T1w", "FLAIR", "PD", "ADC"]
    assert modality_warnings(IMAGE, dict.fromkeys(names, "x"), names) == []
    image = torch.stack([IMAGE[0], torch.roll(IMAGE[1], 8, 1), IMAGE[2]])
    warnings = modality_warnings(image, dict.fromkeys("abc", "x"), list("abc"))
    assert any(warning.startswith("b (x) does not lie on the other modalities") for warning in warnings)


def save(path, data, affine=None, codes=1):
    image = nib.Nifti1Image(data, np.eye(4) if affine is None else affine)
    image.set_sform(image.affine, codes)
    image.set_qform(image.affine, codes)
    nib.save(image, path)
    return str(path)


def files(folder, **changed):
    data = dict(zip(MODALITIES, brain())) | changed
    names = dict(zip(MODALITIES, ("flair", "t1", "t1ce", "t2")))
    return {m: save(folder / f"p_{names[m]}.nii.gz", data[m]) for m in MODALITIES}


def test_the_order_taken_is_logged_and_a_wrong_one_warned_of(tmp_path, caplog):
    whole = save(tmp_path / "whole.nii.gz", np.moveaxis(brain()[[1, 2, 3, 0]], 0, -1))  # BraTS's order
    with caplog.at_level(logging.DEBUG):
        LoadModalitiesd("image", MODALITIES)({"image": whole})
        LoadModalitiesd("image", MODALITIES)({"image": files(tmp_path), "case": "p"})
    assert f"{whole}: channels are taken as FLAIR, T1w, T1Gd, T2w" in caplog.text
    assert f"{tmp_path}: files are taken as FLAIR p_flair.nii.gz, T1w p_t1.nii.gz, T1Gd p_t1ce.nii.gz" in caplog.text
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert warning.startswith(f"{whole}: by their contrast") and "FLAIR (channel 0) looks like T1w" in warning


def test_a_shift_in_the_files_affine_is_found_after_resampling(tmp_path, caplog):
    paths = files(tmp_path)
    shifted = np.eye(4)
    shifted[0, 3] = 12
    save(tmp_path / "p_t2.nii.gz", brain()[3], shifted)
    LoadModalitiesd("image", MODALITIES)({"image": paths, "case": "p"})
    assert "T2w (p_t2.nii.gz) does not lie on the other modalities" in caplog.text


def test_a_modality_that_is_not_finite_or_damaged_is_refused_by_its_file(tmp_path):
    nan = brain()[2]
    nan[3, 4, 5] = np.nan
    paths = files(tmp_path, T1Gd=nan)
    with pytest.raises(ValueError, match=r"p_t1ce.nii.gz: T1Gd has voxels that are NaN or infinite"):
        LoadModalitiesd("image", MODALITIES)({"image": paths})
    whole = save(tmp_path / "whole.nii.gz", np.stack([nan] * 4, -1))
    with pytest.raises(ValueError, match=r"whole.nii.gz: FLAIR has voxels that are NaN"):
        LoadModalitiesd("image", MODALITIES)({"image": whole})
    (tmp_path / "p_t1.nii.gz").write_bytes((tmp_path / "p_t1.nii.gz").read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"p_t1.nii.gz: the file is damaged or cut"):
        LoadModalitiesd("image", MODALITIES)({"image": paths})


def test_a_file_without_a_place_is_warned_of_by_modality(tmp_path, caplog):
    paths = files(tmp_path)
    save(tmp_path / "p_t2.nii.gz", brain()[3], codes=0)
    with contextlib.suppress(ValueError):  # where nibabel puts it, it may not overlap with the others
        LoadModalitiesd("image", MODALITIES)({"image": paths, "case": "p"})
    assert "p_t2.nii.gz: the file of T2w does not say where it lies" in caplog.text


def test_warnings_of_every_file_are_in_the_metadata_of_the_image(tmp_path):
    """Order, blank and shifted channels, a file without a place, and a header that contradicts itself."""
    load = LoadModalitiesd("image", MODALITIES)

    def of(data):
        return warnings_of(load(data)["image"].meta)

    paths = files(tmp_path)
    assert of({"image": paths, "case": "p"}) == []
    whole = save(tmp_path / "whole.nii.gz", np.moveaxis(brain()[[1, 2, 3, 0]], 0, -1))
    (warning,) = of({"image": whole})
    assert warning.startswith("by their contrast the modalities are in another order: FLAIR (channel 0) looks like T1w")
    paths = files(tmp_path, T1Gd=np.full(SIZE, 7, np.float32), T2w=np.roll(brain()[3], 6, 0))
    contradicting = nib.Nifti1Image(brain()[1], np.eye(4))
    contradicting.set_qform(np.diag([1.0, 1, 2, 1]), 1)
    contradicting.set_sform(np.eye(4), 1)
    nib.save(contradicting, paths["T1w"])
    warnings = of({"image": paths, "case": "p"})
    for start in (
        "T1w (p_t1.nii.gz): the header contradicts itself by up to",
        "T1Gd (p_t1ce.nii.gz) is blank: all its voxels are 7",
        "T2w (p_t2.nii.gz) does not lie on the other modalities",
    ):
        assert any(warning.startswith(start) for warning in warnings), (start, warnings)
    save(tmp_path / "p_flair.nii.gz", brain()[0], codes=0)
    assert "the file of FLAIR (p_flair.nii.gz) does not say where it lies" in of({"image": paths, "case": "p"})


def test_cases_of_a_list_are_named_as_it_says(tmp_path):
    """Two files of one name in two folders: their answers would have one name, too."""
    entries = []
    for folder, case in (("a", {"case": "first"}), ("b", {})):
        (tmp_path / folder).mkdir()
        save(tmp_path / folder / "s.nii.gz", np.moveaxis(brain(), 0, -1))
        entries.append({"image": f"{folder}/s.nii.gz", **case})
    (tmp_path / "list.json").write_text(json.dumps(entries))
    items = modality_datalist(tmp_path / "list.json", PATTERNS)
    assert ["failure" in item for item in items] == [False, False]
    load = LoadModalitiesd("image", MODALITIES)
    names = [load(item)["image"].meta["filename_or_obj"] for item in items]
    assert names == [str(tmp_path / "a" / "first.nii.gz"), str(tmp_path / "b" / "s.nii.gz")]
