"""What holds for every name, number and file, tried with hypothesis: the same examples in every run."""

import json
import math
import struct

import hypothesis.strategies as st
import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import nn

from rare_unet_networks.data import HeaderPreservingNibabelReader, collect_volumes, modality_datalist
from rare_unet_networks.data.datalists import name_fault
from rare_unet_networks.data.labelled import labelled_datalist
from rare_unet_networks.data.records import read_record
from rare_unet_networks.levels import ResolutionLevels
from rare_unet_networks.networks.weights import load_weights
from rare_unet_networks.utils.errors import one_line
from rare_unet_networks.utils.tables import FORMULA, as_cell, from_cell

few = settings(
    derandomize=True, max_examples=100, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
LEVELS = ResolutionLevels(num_levels=4, num_stages=5, spatial_size=[32, 64, 32], spacing=[1.0, 1.0, 1.0])
SCAN = nib.Nifti1Image(np.arange(60, dtype=np.float32).reshape(3, 4, 5), np.diag([1.0, 2.0, 3.0, 1.0]))
SCAN.set_qform(SCAN.affine, 1)
CONTENT = SCAN.to_bytes()


@few
@given(changes=st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_header_of_any_bytes_is_read_or_refused_by_the_name_of_its_file(tmp_path, changes):
    content = bytearray(CONTENT)
    for place, value in changes:
        content[place] = value
    path = tmp_path / "scan.nii"
    path.write_bytes(content)
    reader = HeaderPreservingNibabelReader()
    try:
        array, meta = reader.get_data(reader.read(path))
    except ValueError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
        return
    assert array.size == 60 and np.isfinite(meta["affine"]).all() and np.linalg.det(meta["affine"]) != 0


FIELDS = st.sampled_from([(offset, "<f") for offset in range(76, 108, 4)] + [(o, "<f") for o in range(256, 328, 4)])


@few
@given(field=FIELDS, value=st.floats(width=32))
def test_a_form_of_any_number_is_read_or_refused(tmp_path, field, value):
    content = bytearray(CONTENT)
    struct.pack_into(field[1], content, field[0], value)
    path = tmp_path / "scan.nii"
    path.write_bytes(content)
    reader = HeaderPreservingNibabelReader()
    try:
        _, meta = reader.get_data(reader.read(path))
    except ValueError as error:
        assert str(error).startswith(f"{path}: ")
        return
    assert np.isfinite(meta["affine"]).all()
    assert all(0.05 <= s <= 50 for s in nib.affines.voxel_sizes(meta["affine"]))


@few
@given(text=st.text(st.characters()))
def test_a_cell_is_never_a_formula_and_gives_back_its_text(text):
    cell = as_cell(text)
    assert from_cell(cell) == text
    if cell.startswith(FORMULA):
        float(cell)  # a number such as -1


@few
@given(text=st.text(st.characters()))
def test_a_line_of_a_log_is_one_line(text):
    assert one_line(text).isprintable()
    if name_fault(text) is None:
        assert len(text.splitlines()) <= 1


@few
@given(n=st.integers(1, 600), spacing=st.integers(10, 2000), noise=st.floats(-1e-7, 1e-7), level=st.integers(0, 3))
def test_the_last_digits_of_a_spacing_do_not_decide_the_size(n, spacing, noise, level):
    sizes = [LEVELS.resampled_size((n,) * 3, (s,) * 3, level) for s in (spacing / 100, spacing / 100 * (1 + noise))]
    assert sizes[0] == sizes[1]


@few
@given(content=JSON)
def test_a_list_of_cases_of_any_json_gives_items_or_a_line(tmp_path, content):
    path = tmp_path / "list.json"
    path.write_text(json.dumps(content))
    try:
        items = modality_datalist(str(path), {"T1": "t1$", "T2": "t2$"})
    except ValueError as error:
        assert str(path) in str(error)
        return
    assert len(items) == len(content) and all("image" in item and isinstance(item["case"], str) for item in items)
    assert all("/" not in item["case"] for item in items if "failure" not in item)


IMAGE = JSON | st.sampled_from(
    ["a.nii", "a_t1.nii", ["a_t1.nii", "a_t2.nii"], {"T1": "a.nii", "T2": "b.nii"}, {"T1": 1}]
)


@few
@given(content=st.lists(st.fixed_dictionaries({"image": IMAGE}, optional={"case": JSON}), min_size=1, max_size=3))
def test_an_entry_of_any_image_and_case_gives_an_item(tmp_path, content):
    test_a_list_of_cases_of_any_json_gives_items_or_a_line.hypothesis.inner_test(tmp_path, content)


@few
@given(
    description=JSON | st.fixed_dictionaries({"channel_names": JSON, "file_ending": st.just(".nii"), "labels": JSON})
)
def test_a_description_of_any_json_gives_items_or_a_line(tmp_path, description):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir(exist_ok=True)
    for name in ("imagesTr/a_0000.nii", "imagesTr/a.nii", "labelsTr/a.nii", "labelsTr/a_0000.nii"):
        (tmp_path / name).touch()
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    (tmp_path / "splits.json").write_text('{"train": ["a"]}')
    try:
        assert labelled_datalist(str(tmp_path), str(tmp_path / "splits.json"), "train", class_names=["x"])
    except ValueError as error:
        assert str(tmp_path) in str(error)


@few
@given(content=JSON)
def test_splits_of_any_json_give_items_or_a_line(tmp_path, content):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / "splits.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"splits_file must|split must be one of|none of the"):
        labelled_datalist(str(tmp_path), str(tmp_path / "splits.json"), "train")


NUMBER = st.integers() | st.floats()
VOLUME = st.fixed_dictionaries({"voxels": NUMBER, "mm3": NUMBER}, optional={"mm3_fine": NUMBER | st.none()})
VOLUMES = st.dictionaries(st.text(max_size=4), JSON | VOLUME, max_size=2)
GOOD = st.fixed_dictionaries(
    {"case": st.text(), "spacing": st.lists(NUMBER), "level": NUMBER, "seconds": NUMBER, "volumes": VOLUMES}
)
RECORD = {name: JSON for name in ("case", "spacing", "level", "seconds")} | {"volumes": VOLUMES}


@few
@given(content=JSON | st.fixed_dictionaries(RECORD) | GOOD)
def test_a_record_of_any_json_is_read_or_counts_as_absent(tmp_path, content):
    path = tmp_path / "a_seg.json"
    path.write_text(json.dumps(content))
    if read_record(path) is None:
        return
    for row in collect_volumes(tmp_path):
        assert row["case"] == content["case"] and math.isfinite(row["level"])


@few
@given(head=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02"]), rest=st.binary(max_size=200))
def test_weights_of_any_bytes_are_refused_by_the_name_of_their_file(tmp_path, head, rest):
    path = tmp_path / "model.pt"
    path.write_bytes(head + rest)
    network = nn.Linear(1, 1)
    before = network.weight.clone()
    with pytest.raises(ValueError, match=r"model\.pt: ") as error:
        load_weights(path, network)
    assert "\n" not in str(error.value) and torch.equal(network.weight, before)
