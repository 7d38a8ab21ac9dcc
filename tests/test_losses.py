import math

import pytest
import torch

from rare_unet_networks.losses import RAREUNetLoss

# One voxel pair, two classes, logits (0, 0): probabilities one half each.
# Cross-entropy = ln 2. Soft Dice of class 1 for labels (0, 1): 2 · 0.5 / (0.5 + 0.5 + 1) = 0.5, loss 0.5.
FLAT = torch.zeros(1, 2, 2, 1, 1)
LABEL = torch.tensor([0.0, 1.0]).reshape(1, 1, 2, 1, 1)
# Logits (0, ln 3) in favour of class 1 in both voxels: probability 3/4.
# Cross-entropy = (ln 4 + ln 4/3) / 2. Dice = 2 · 0.75 / (1.5 + 1) = 0.6, loss 0.4.
TILTED = torch.zeros(1, 2, 2, 1, 1)
TILTED[:, 1] = math.log(3)
CE = {"flat": math.log(2), "tilted": (math.log(4) + math.log(4 / 3)) / 2}
# Gateway and encoder differ by 1 and by 3 in every entry: mean squares 1 and 9.
FEATURES = [
    (torch.ones(1, 2, 1, 1, 1), torch.zeros(1, 2, 1, 1, 1)),
    (torch.full((1, 4, 1, 1, 1), 3.0), torch.zeros(1, 4, 1, 1, 1)),
]

CASES = [
    ({}, [FLAT], [], 0.5 * CE["flat"] + 0.5 * 0.5),
    ({}, [TILTED], [], 0.5 * CE["tilted"] + 0.5 * 0.4),
    ({}, [FLAT, TILTED], [], 0.25 * (CE["flat"] + 0.5 + CE["tilted"] + 0.4)),
    ({"alpha": 0.35}, [FLAT], [], 0.35 * CE["flat"] + 0.65 * 0.5),
    ({"alpha": 1.0}, [FLAT], [], CE["flat"]),
    ({"alpha": 0.0}, [FLAT], [], 0.5),
    ({}, [FLAT], FEATURES, 0.5 * CE["flat"] + 0.25 + 5.0),
    ({"consistency_weight": 0.1}, [FLAT], FEATURES, 0.5 * CE["flat"] + 0.25 + 0.5),
    ({"consistency_weight": 0.0}, [FLAT], FEATURES, 0.5 * CE["flat"] + 0.25),
]
# Predictions of the coarse levels on the level 0 grid: the mean of their losses is added.
FULL_CASES = [
    ({}, [TILTED], 0.5 * CE["tilted"] + 0.5 * 0.4),
    ({"fine_weight": 0.5}, [TILTED, FLAT], 0.125 * (CE["tilted"] + 0.4 + CE["flat"] + 0.5)),
    ({"fine_weight": 0.0}, [TILTED], 0.0),
]
ILL_CASES = [
    ({"alpha": 1.5}, "alpha must be 0 to 1"),
    ({"consistency_weight": -1.0}, "consistency_weight must be 0"),
    ({"fine_weight": -1.0}, "fine_weight must be 0"),
]


@pytest.mark.parametrize("kwargs, logits, features, expected", CASES)
def test_loss_equals_the_number_worked_out_by_hand(kwargs, logits, features, expected):
    loss = RAREUNetLoss(**kwargs)((logits, features, []), [LABEL] * len(logits))
    assert float(loss) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kwargs, full, added", FULL_CASES)
def test_predictions_on_the_level_0_grid_are_compared_with_the_first_label(kwargs, full, added):
    # The second level's label is all background: were it used, the loss would be another.
    labels = [LABEL, torch.zeros_like(LABEL)]
    alone = RAREUNetLoss(**kwargs)(([FLAT, FLAT], [], []), labels)
    assert float(RAREUNetLoss(**kwargs)(([FLAT, FLAT], [], full), labels) - alone) == pytest.approx(added, abs=1e-4)


def test_without_level_0_its_label_comes_last():
    loss = RAREUNetLoss()(([FLAT], [], [TILTED]), [torch.zeros_like(LABEL), LABEL])
    flat_on_background = 0.5 * CE["flat"] + 0.5 * 1.0  # no voxel of class 1: Dice 0
    assert float(loss) == pytest.approx(flat_on_background + 0.5 * CE["tilted"] + 0.5 * 0.4, abs=1e-4)


@pytest.mark.parametrize("kwargs, match", ILL_CASES)
def test_ill_arguments_are_refused(kwargs, match):
    with pytest.raises(ValueError, match=match):
        RAREUNetLoss(**kwargs)


@pytest.mark.parametrize("logits, labels", [([FLAT], []), ([FLAT, FLAT], [LABEL]), ([], [])])
def test_as_many_labels_as_logits_are_demanded(logits, labels):
    with pytest.raises(ValueError, match="labels must be one per active level"):
        RAREUNetLoss()((logits, [], []), labels)


@pytest.mark.parametrize("detach", [True, False])
def test_the_encoder_learns_from_the_gateways_unless_they_are_detached(detach):
    gateway, encoder = torch.ones(1, 1, 1, 1, 1, requires_grad=True), torch.zeros(1, 1, 1, 1, 1, requires_grad=True)
    RAREUNetLoss(detach_target=detach)(([FLAT], [(gateway, encoder)], []), [LABEL]).backward()
    assert float(gateway.grad) == 2.0
    assert encoder.grad is None if detach else float(encoder.grad) == -2.0


def test_dice_is_taken_over_the_whole_batch():
    # The second member lacks class 1. Over the batch: 2 · 0.5 / (4 · 0.5 + 1) = 1/3, loss 2/3; per member it is not.
    logits, labels = FLAT.expand(2, -1, -1, -1, -1), torch.cat([LABEL, torch.zeros_like(LABEL)])
    assert float(RAREUNetLoss(alpha=0.0)(([logits], [], []), [labels])) == pytest.approx(2 / 3, abs=1e-4)
