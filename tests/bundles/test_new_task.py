"""docs/new_task.md holds what it promises: a third task is a file of ten lines, and a command makes a bundle of it."""

import json
import re
import shutil

import jsonschema
import nibabel as nib
import numpy as np
import pytest

from rare_unet_networks.utils.errors import root_cause
from tools.new_bundle import main, new_metadata

from .conftest import BUNDLES, REPOSITORY, read, run
from .documents import blocks, run_script, small_copy
from .test_brain_tumor import heads  # noqa: F401

SOURCE = BUNDLES["brain_tumor_mri_segmentation"]
PAGE = REPOSITORY / "docs" / "new_task.md"
TEXT = re.search(r"<!-- values: overlay -->\n```json\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
OVERLAY = json.loads(TEXT)
SPLITS = {"train": ["a", "b"], "validation": ["c"], "test": []}


@pytest.fixture(scope="module")
def task(heads, tmp_path_factory):  # noqa: F811
    """A folder like the repository, of short trainings, with the overlay of the document and the data it names."""
    root = tmp_path_factory.mktemp("task")
    small_copy(SOURCE, root / "bundles", SPLITS)
    (root / "tools").symlink_to(REPOSITORY / "tools")
    (root / "docs").symlink_to(REPOSITORY / "docs")
    (root / "Task01_BrainTumour").symlink_to(heads)
    (root / "my_dataset").symlink_to(heads)
    (root / "whole_tumour.json").write_text(json.dumps({**OVERLAY, "val_interval": 1}))
    return root


def test_the_overlay_has_about_ten_lines():
    assert len(TEXT.splitlines()) <= 12


def test_a_task_is_trained_evaluated_segments_and_becomes_a_bundle_by_the_commands_of_the_document(task):
    first, second, third = (text for _, text in blocks(PAGE))
    run_script(first, task)
    output = task / "runs" / "whole_tumour"
    rows = read(output / "metrics" / "per_case.csv")
    assert {r["scale"] for r in rows} == {"1", "0.5", "0.25"} and {r["class"] for r in rows} == {"whole_tumour"}
    assert {r["case"] for r in rows} == {"c"}
    record = json.loads((output / "c_seg.json").read_text())
    assert record["level"] == 0 and list(record["volumes"]) == ["whole_tumour"]
    prediction = nib.load(output / "c_seg.nii.gz")
    assert prediction.header.get_zooms() == (2.0, 2.0, 2.0) and set(np.unique(prediction.dataobj)) <= {0, 1}
    run_script(second, task)
    for case in "abc":
        again = task / "runs" / "whole_tumour_again" / f"{case}_seg.nii.gz"
        assert again.read_bytes() == (output / f"{case}_seg.nii.gz").read_bytes()
    made = task / "bundles" / "whole_tumour"
    assert json.loads((made / "configs" / "splits.json").read_text()) == SPLITS
    assert not (made / "sample").exists() and [p.name for p in (made / "models").iterdir()] == ["model.pt"]
    for name in ("train", "inference"):
        content = json.loads((made / "configs" / f"{name}.json").read_text())
        assert content["levels"]["spacing"] == [2.0, 2.0, 2.0] and content["network_def"]["num_gateways"] == 2
    assert json.loads((made / "configs" / "train.json").read_text())["patch_size"] == OVERLAY["patch_size"]
    assert json.loads((made / "configs" / "evaluate.json").read_text())["regions"] == {}
    assert "spatial_size: [32, 32, 32]" in run_script(third, task)  # the data are 36 to 43 voxels of 1 mm


@pytest.mark.parametrize(
    "task, changes, channels, stages, levels",
    [
        ("brain_tumor", {}, (4, 4), 6, 4),
        ("brain_tumor", {"class_names": ["x"], "modalities": {"a": "a$"}}, (1, 2), 6, 4),
        ("brain_tumor", {"network_def#num_gateways": 1, "network_def#channels": [4, 8, 16]}, (4, 4), 3, 2),
        ("hippocampus", {"class_names": list("xyz")}, (1, 4), 5, 4),
        ("hippocampus", {"network_def#num_gateways": 2, "network_def#channels": [4] * 4}, (1, 3), 4, 3),
    ],
)
def test_the_network_follows_from_classes_modalities_and_channels(task, changes, channels, stages, levels):
    bundle = BUNDLES[f"{task}_mri_segmentation"]
    workflow = run("inference.json", run=False, bundle=bundle, **changes)
    network, task_levels = (workflow.parser.get_parsed_content(key) for key in ("network_def", "levels"))
    state = network.state_dict()
    assert (state["encoder.0.0.conv.weight"].shape[1], state["heads.0.conv.bias"].shape[0]) == channels
    assert (network.num_stages, network.num_levels) == (stages, levels)
    assert (task_levels.num_stages, task_levels.num_levels) == (stages, levels)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"network_def#num_gateways": 5}, r"num_gateways must be 0 to 4 for 6 channels, got 5\."),
        ({"network_def#fine_channels": [8]}, r"fine_channels must be 3 numbers, one per level above 0, got \[8\]\."),
        ({"doubt_limit": [0.3]}, r"doubt_limit must have 4 entries, one by level, got \[0\.3\]\."),
    ],
)
def test_what_does_not_fit_together_is_named(changes, message):
    with pytest.raises(RuntimeError) as error:
        run("inference.json", run=False, bundle=SOURCE, **changes).parser.get_parsed_content("evaluator")
    assert re.fullmatch(message, root_cause(error.value))


@pytest.mark.parametrize(
    "words, message",
    [
        (["nowhere", "task.json", "new"], r"the source must be a bundle, nowhere has no configs/inference.json\."),
        ([SOURCE, "absent.json", "new"], r"absent.json must be a file, it does not exist\."),
        ([SOURCE, "task.json", "old"], "old exists already: remove it, or give another name"),
        ([SOURCE, "list.json", "new"], r"list.json must be a JSON object, got a list\."),
        ([SOURCE, "misspelt.json", "new"], r"class_nmaes is no entry of the config\. Did you mean class_names\?"),
        ([SOURCE, "other.json", "new"], r"\+load, brightness: no config of .* has this entry: write it there\."),
        ([SOURCE, "task.json", "new", "--checkpoint", "absent.pt"], r"absent.pt must be a file, it does not exist\."),
    ],
)
def test_a_bundle_that_cannot_be_made_ends_with_one_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").mkdir()
    contents = {
        "task": OVERLAY,
        "list": [],
        "misspelt": {"class_nmaes": ["x"]},
        "other": {"+load": [], "brightness": 1},
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert ended.value.code == 2 and re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "new").exists()


def test_metadata_of_a_new_bundle_are_of_its_classes_and_as_monai_wants_them():
    source = json.loads((SOURCE / "configs" / "metadata.json").read_text())
    config = {"class_names": ["x"], "modalities": {"A": "a", "B": "b"}, "levels": {"spatial_size": [8, 8, 8]}}
    metadata = new_metadata(source, config, "mine")
    schema = json.loads((REPOSITORY / "tests" / "bundles" / "meta_schema_20240725.json").read_text())
    jsonschema.validate(metadata, schema)
    data_format = metadata["network_data_format"]
    assert data_format["inputs"]["image"]["channel_def"] == {"0": "A", "1": "B"}
    assert data_format["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "x"}
    assert data_format["outputs"]["pred"]["num_channels"] == 2 and metadata["version"] in metadata["changelog"]
    assert not {"eval_metrics", "verification"} & set(metadata)
    assert source["network_data_format"]["inputs"]["image"]["num_channels"] == 4  # the source is as it was


def test_a_new_bundle_of_the_hippocampus_has_one_channel(tmp_path):
    overlay = tmp_path / "task.json"
    overlay.write_text(json.dumps({"class_names": ["left", "right", "third"], "doubt_limit": None}))
    main([str(BUNDLES["hippocampus_mri_segmentation"]), str(overlay), str(tmp_path / "mine")])
    metadata = json.loads((tmp_path / "mine" / "configs" / "metadata.json").read_text())
    assert metadata["network_data_format"]["inputs"]["image"]["channel_def"] == {"0": "image"}
    assert metadata["network_data_format"]["outputs"]["pred"]["num_channels"] == 4
    assert "post_processed_outputs" not in metadata["network_data_format"]  # those are of the source's labels
    shutil.rmtree(tmp_path / "mine")
