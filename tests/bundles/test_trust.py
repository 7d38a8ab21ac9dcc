"""``--trust`` in inference: what is in the records."""

import json

import pytest
import torch

from rare_unet_networks.bundle.trust_fit import fit_trust
from rare_unet_networks.utils import sha256

from ..bundle.test_trust_fit import CLASSES, rows
from .conftest import BUNDLE, SMALL, read, run

ENTRIES = {"agreement", "expected_dice", "volume_interval"}


@pytest.fixture(scope="module")
def fitted(trained, tmp_path_factory):
    """Small weights, and a model that was fitted to invented scans and has a limit that no prediction reaches."""
    checkpoint = trained[1] / "model.pt"
    model = fit_trust(rows(), CLASSES, last=3)
    model.weights_sha256, model.limit = sha256(checkpoint), 1.1
    path = tmp_path_factory.mktemp("trust") / "trust.json"
    model.save(path)
    return {"checkpoint": str(checkpoint), "trust_file": str(path)}


def records(folder, **options):
    overrides = {"field_of_view": "crop", "input": str(BUNDLE / "sample/images"), "output_dir": str(folder), **SMALL}
    run("inference.json", **{**overrides, **options})
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*_seg.json"))]


@pytest.mark.parametrize("trust", [True, "full"])
def test_records_have_the_expected_dice_with_its_error_and_intervals(tmp_path, fitted, trust):
    found = records(tmp_path, trust=trust, **fitted)
    assert len(found) == 8
    for record in found:
        dice, intervals = record["expected_dice"], record["volume_interval"]
        assert list(dice["classes"]) == list(record["agreement"]["classes"]) == CLASSES
        assert dice["mean"] == pytest.approx(sum(dice["classes"].values()) / 2) and 0 < dice["mean"] < 1
        assert dice["error"] > 0 and list(intervals) == [*CLASSES, "total"]
        for name in CLASSES:
            assert (intervals[name] is None) == (record["volumes"][name]["mm3_fine"] == 0)
        assert any(reason.startswith("the expected Dice is low (") for reason in record["review"])
    assert all("the expected Dice is low" in row["review"] for row in read(tmp_path / "volumes.csv"))


def test_trust_false_leaves_all_out(tmp_path, fitted):
    for record in records(tmp_path, trust=False, **fitted):
        assert not ENTRIES & set(record)
        assert not any("expected Dice" in reason for reason in record["review"])


def test_other_weights_have_the_agreement_alone(tmp_path, fitted, trained, caplog):
    other = tmp_path / "other.pt"
    state = torch.load(fitted["checkpoint"], weights_only=True)
    torch.save(state, other)
    for record in records(tmp_path / "out", **{**fitted, "checkpoint": str(other)}):
        assert ENTRIES & set(record) == {"agreement"}
    assert "trust.json was fitted to other weights: no expected Dice" in caplog.text
