"""The fit of the model of trust, its intervals, and whether a command uses it."""

import logging
import math

import numpy as np
import pytest
import torch

from rare_unet_networks.bundle.trust import trust_model
from rare_unet_networks.bundle.trust_fit import conformal_limits, expected_mean, fit_trust, true_mean
from rare_unet_networks.bundle.trust_scans import subject_of, trust_tasks
from rare_unet_networks.data.acquisitions import Acquisition
from rare_unet_networks.transforms.corruption import CORRUPTIONS, corrupted
from rare_unet_networks.utils import sha256

CLASSES = ["anterior", "posterior"]


def test_limits_have_nine_in_ten_scores_between_them():
    # 19 subjects have 1/20 each, as does the new one: (0.1 - 1/20) / 2 may lie beyond each limit, less than one has.
    assert conformal_limits([float(i) for i in range(19)], [str(i) for i in range(19)], 0.9) == [0.0, 18.0]
    # 39 subjects: (0.1 - 1/40) / 2 = 0.0375 is more than 1/40 and less than 2/40, so one lies beyond each limit.
    assert conformal_limits([float(38 - i) for i in range(39)], [str(i) for i in range(39)], 0.9) == [1.0, 37.0]
    assert conformal_limits([3.0], ["a"], 0.9) == [3.0, 3.0]  # too few: at least the outermost


def test_many_scans_of_a_subject_count_as_one():
    subjects = [str(i) for i in range(39)]
    scores = [float(i) for i in range(39)]
    # Ten more scans of the first subject do not move the limits: they share its weight.
    assert conformal_limits([*scores, *[0.0] * 10], [*subjects, *["0"] * 10], 0.9) == [1.0, 37.0]
    # The lowest ten scores are of one subject, together 0.025; with the next subject's it is 0.05, above 0.0375.
    low = [-float(i) for i in range(10)]
    assert conformal_limits([*low, *scores[1:]], [*["0"] * 10, *subjects[1:]], 0.9) == [1.0, 37.0]


@pytest.mark.parametrize(
    "case, subject",
    [("hippocampus_281", "hippocampus_141"), ("hippocampus_282", "hippocampus_141"), ("BRATS_12", "BRATS_12")],
)
def test_both_hippocampi_of_a_person_are_one_subject(case, subject):
    assert subject_of(case) == subject


def test_every_case_and_spacing_is_clean_and_has_different_corruptions():
    acquisitions = [Acquisition((1.0,) * 3), Acquisition((4.0,) * 3)]
    tasks = trust_tasks(["a", "b"], acquisitions, corruptions=2)
    for case in "ab":
        for acquisition in acquisitions:
            kinds = [k for c, a, k in tasks if (c, a) == (case, acquisition)]
            assert len(set(kinds)) == 3 and "clean" in kinds
    assert len(tasks) == 12 and tasks == trust_tasks(["a", "b"], acquisitions, corruptions=2)


def rows(num_subjects=12, noise=0.02, **changes):
    """Scans whose Dice is their agreement, but for noise, and whose true volume is 1.1 times the predicted one."""
    random = np.random.default_rng(0)
    made = []
    for number in range(num_subjects * 10):
        dice = [float(d) for d in random.uniform(0.3, 0.95, 2)]
        made.append(
            {
                "agreement": [float(np.clip(d + random.normal(0, noise), 0.01, 0.99)) for d in dice],
                "confidence": [0.9, 0.9],
                "volume": [1000.0, 1000.0],
                "label_volume": [1000.0, 1000.0],
                "doubt": [0.3, 0.3],
                "border": 0.0,
                "spacing": 2.0 ** (number % 4),
                "anisotropy": 1.0,
                "level": number % 4,
                "dice": dice,
                "true": [1100.0, 1100.0],
                "subject": str(number % num_subjects),
                "kind": "clean" if number % 2 else "noise",
                **changes,
            }
        )
    return made


def test_the_fit_finds_dice_that_follows_the_agreement():
    model = fit_trust(rows(), CLASSES, last=3)
    fresh = rows(noise=0.0)
    errors = [abs(expected_mean(model, row) - true_mean(row)) for row in fresh]
    assert sum(errors) / len(errors) < 0.02  # that of the noise
    assert all(error < 0.03 for _, error in model.errors) and model.errors[0][0] == 0.0
    assert model.volumes[0] == pytest.approx([math.log(1100), 0.05])  # the least spread
    for row in fresh:
        dice = model.expected_dice(row)
        low, high = model.interval("total", 2000.0, dice, row["level"])
        assert 2000 < low <= high < 3000  # around 2200


def test_a_class_that_is_missing_in_the_label_does_not_count():
    row = {**rows()[0], "dice": [0.5, math.nan]}
    assert true_mean(row) == 0.5


@pytest.mark.parametrize(
    "few, message",
    [
        (rows(num_subjects=3), "expected scans of at least 5 subjects to fit trust, got 3"),
        (rows(kind="noise"), "expected a clean scan to fit trust, got 120 corrupted ones"),
    ],
)
def test_too_few_scans_are_an_error(few, message):
    with pytest.raises(ValueError, match=message):
        fit_trust(few, CLASSES, last=3)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"weights")
    model = fit_trust(rows(), CLASSES, last=3)
    model.weights_sha256 = sha256(tmp_path / "model.pt")
    model.save(tmp_path / "trust.json")
    return tmp_path


def test_a_command_uses_the_model_with_its_own_weights_alone(files, caplog):
    arguments = (files / "trust.json", files / "model.pt", CLASSES)
    assert trust_model(True, *arguments).class_names == CLASSES
    assert trust_model(False, *arguments) is None and trust_model("full", None, *arguments[1:]) is None
    assert not caplog.messages
    (files / "other.pt").write_bytes(b"others")
    with caplog.at_level(logging.WARNING):
        assert trust_model(True, files / "trust.json", files / "other.pt", CLASSES) is None
        assert trust_model(True, files / "none.json", files / "model.pt", CLASSES) is None
    assert "trust.json was fitted to other weights: no expected Dice" in caplog.messages[0]
    assert "none.json does not exist: no expected Dice" in caplog.messages[1]


def test_a_model_of_other_classes_is_an_error(files):
    with pytest.raises(ValueError, match=r"trust\.json: expected the classes \['tumour'\], got \['anterior'"):
        trust_model(True, files / "trust.json", files / "model.pt", ["tumour"])


@pytest.mark.parametrize("kind", ("clean", *CORRUPTIONS))
def test_each_corruption_changes_the_scan_or_its_header(kind):
    image = torch.rand(1, 12, 16, 14, generator=torch.Generator().manual_seed(0))
    label = torch.zeros(1, 12, 16, 14)
    label[:, 4:9, 5:12, 4:10] = 1
    new, new_label, factor = corrupted(kind, image, label, np.random.RandomState(1))
    assert new.shape == new_label.shape and new.isfinite().all()
    is_same = new.shape == image.shape and torch.equal(new, image)
    assert is_same == (kind in ("clean", "spacing")) and (factor != 1) == (kind == "spacing")
    if kind == "orientation":
        assert new_label.sum() == label.sum()
    elif kind == "cut":
        assert 0 < new_label.sum() < label.sum()
    else:
        assert torch.equal(new_label, label)


def test_an_unknown_corruption_is_an_error():
    with pytest.raises(ValueError, match=r"kind must be 'clean' or one of .*, got 'fog'"):
        corrupted("fog", torch.zeros(1, 4, 4, 4), torch.zeros(1, 4, 4, 4), np.random.RandomState(0))
