"""Training on from given weights (configs/finetune.json), run for real."""

import shutil

import pytest
import torch
from monai.transforms import LoadImage, ScaleIntensityRangePercentiles

from rare_unet_networks.transforms.low_resolution import SimulateLowResolutiond

from .conftest import SMALL, run


def test_finetuning_starts_from_given_weights_and_goes_on_from_its_own(tiny, trained, tmp_path):
    _, pretrained = trained
    paths = dict(dataset_dir=str(tiny), splits_file=str(tiny / "splits.json"), output_dir=str(tmp_path))
    options = dict(checkpoint=str(pretrained / "model.pt"), max_epochs=1, **paths, **SMALL)

    def weights(**changed):
        workflow = run("train.json", "finetune.json", workflow_type="train", **{**options, **changed})
        return workflow.parser.get_parsed_content("network_def").state_dict()

    given = torch.load(pretrained / "model.pt", weights_only=True)
    still = weights(learning_rate=0.0, output_dir=str(tmp_path / "still"))
    assert all(torch.equal(still[name], given[name]) for name in given)
    once = weights()
    assert any(not torch.equal(once[name], given[name]) for name in given)
    again = weights()  # nothing is left to do, and the given weights do not take the trained ones' place
    assert all(torch.equal(again[name], once[name]) for name in given)
    assert (tmp_path / "finetuned.pt").exists() and not (tmp_path / "model.pt").exists()


def test_finetuning_in_the_folder_of_a_training_is_another_training(tiny, trained, tmp_path):
    _, pretrained = trained
    folder = tmp_path / "used"
    shutil.copytree(pretrained, folder)
    paths = dict(dataset_dir=str(tiny), splits_file=str(tiny / "splits.json"), output_dir=str(folder))
    options = dict(checkpoint=str(folder / "model.pt"), max_epochs=1, learning_rate=0.0, **paths, **SMALL)
    workflow = run("train.json", "finetune.json", workflow_type="train", **options)
    given = torch.load(pretrained / "model.pt", weights_only=True)
    found = workflow.parser.get_parsed_content("network_def").state_dict()
    assert all(torch.equal(found[name], given[name]) for name in given)
    left = torch.load(folder / "model.pt", weights_only=True)
    assert all(torch.equal(left[name], given[name]) for name in given)


@pytest.mark.parametrize("downsample, validated", [("trilinear", "trilinear"), (["mean", "trilinear"], "mean")])
def test_a_network_is_validated_on_scans_as_it_is_trained_on(tiny, tmp_path, downsample, validated):
    paths = dict(dataset_dir=str(tiny), splits_file=str(tiny / "splits.json"), output_dir=str(tmp_path))
    parser = run("train.json", workflow_type="train", run=False, downsample=downsample, **paths).parser
    item = {**parser.get_parsed_content("val_data")[0], "level": 1}
    found = parser.get_parsed_content("validate#preprocessing")(item)["image"]
    raw = LoadImage(ensure_channel_first=True)(item["image"])
    coarse = SimulateLowResolutiond("image", image_mode=validated)({"image": raw, "level": 1})["image"]
    scaled = ScaleIntensityRangePercentiles(0.5, 99.5, 0.0, 1.0, clip=True, channel_wise=True)(coarse)
    torch.testing.assert_close(found.as_tensor(), scaled.as_tensor())
