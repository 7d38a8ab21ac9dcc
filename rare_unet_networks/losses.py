"""Training loss of RARE-UNet (Albertsen et al. 2025, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.losses import DiceCELoss, DiceLoss
from monai.networks import one_hot
from torch import nn
from torch.nn import functional as F

from .networks.outputs import PyramidOutput
from .utils.distributed import world_size

__all__ = ["RAREUNetLoss"]


class BatchDiceLoss(DiceLoss):
    """Soft Dice of softmax probabilities over the whole batch, in distributed training over the batches of all ranks.

    Torch's data parallelism averages the gradients of the ranks. For a mean over voxels this is the gradient of the
    joint batch. For a quotient of sums, such as Dice, it is not: the sums must be taken over all ranks first.

    Args:
        include_background: whether class 0 counts.
    """

    def __init__(self, include_background: bool = True) -> None:
        super().__init__(include_background, to_onehot_y=True, softmax=True, batch=True)

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """
        Args:
            input: logits, (B, classes, *spatial_size).
            target: class indices, (B, 1, *spatial_size).
        """
        if world_size() == 1:
            return super().forward(input, target)
        from torch.distributed.nn.functional import all_reduce  # not in every build of torch

        classes = slice(0 if self.include_background else 1, None)
        pred = input.softmax(dim=1)[:, classes]
        label = one_hot(target, input.shape[1])[:, classes]
        axes = (0, *range(2, input.ndim))
        sums = torch.stack([(pred * label).sum(axes), pred.sum(axes), label.sum(axes)])
        intersection, pred_sum, label_sum = all_reduce(sums)  # (classes,) each
        return (1 - (2 * intersection + self.smooth_nr) / (pred_sum + label_sum + self.smooth_dr)).mean()


class RAREUNetLoss(nn.Module):
    """Segmentation loss averaged over the active levels plus consistency loss averaged over the gateway levels.

    The segmentation loss of a level is ``alpha`` · cross-entropy + (1 - ``alpha``) · soft Dice loss. The consistency
    loss of a gateway level is the mean squared error between gateway and encoder feature. The soft Dice is taken over
    the whole batch and without background, as in the authors' code. Beyond the paper, the predictions of the levels
    above 0 on the level 0 grid are compared with the label of level 0, by the same segmentation loss.

    Args:
        alpha: weight of the cross-entropy, 0 to 1.
        consistency_weight: the paper's λ.
        fine_weight: weight of the segmentation loss of the predictions on the level 0 grid.
        detach_target: whether the encoder feature is a constant target (the authors' code). The gateways then learn
            from the encoder and not the other way round.
        include_background: whether class 0 counts in the soft Dice.

    Raises:
        ValueError: if ``alpha`` is outside 0 to 1 or a weight is negative.
    """

    def __init__(
        self,
        alpha: float = 0.5,
        consistency_weight: float = 1.0,
        fine_weight: float = 1.0,
        detach_target: bool = True,
        include_background: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be 0 to 1, got {alpha}.")
        if not consistency_weight >= 0:
            raise ValueError(f"consistency_weight must be 0 or more, got {consistency_weight}.")
        if not fine_weight >= 0:
            raise ValueError(f"fine_weight must be 0 or more, got {fine_weight}.")
        self.consistency_weight = consistency_weight
        self.fine_weight = fine_weight
        self.detach_target = detach_target
        self.segmentation = DiceCELoss(
            include_background=include_background,
            to_onehot_y=True,
            softmax=True,
            batch=True,
            lambda_dice=1 - alpha,
            lambda_ce=alpha,
        )
        self.segmentation.dice = BatchDiceLoss(include_background)

    def forward(
        self,
        outputs: PyramidOutput,
        labels: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """
        Args:
            outputs: output of ``RAREUNet`` for a pyramid: the logits of each active level,
                (B, classes, *spatial_size); the pairs (gateway feature, encoder feature); and, if the network predicts
                them, the logits of each active level above 0 on the level 0 grid.
            labels: class indices of each active level, (B, 1, *spatial_size). If level 0 is not active, its label
                comes last, for the logits on the level 0 grid.

        Returns:
            the loss, a scalar.

        Raises:
            ValueError: if the number of labels does not match that of the logits, or there are no logits.
        """
        logits, features, fine_logits = outputs
        if not len(logits) or len(labels) - len(logits) not in (0, 1):
            raise ValueError(f"labels must be one per active level, got {len(labels)} for {len(logits)} logits.")
        total = torch.stack([self.segmentation(y, label) for y, label in zip(logits, labels)]).mean()
        if features:
            consistency = [F.mse_loss(g, e.detach() if self.detach_target else e) for g, e in features]
            total = total + self.consistency_weight * torch.stack(consistency).mean()
        fine_label = labels[-1] if len(labels) > len(logits) else labels[0]
        if fine_logits and self.fine_weight:
            fine = [self.segmentation(y, fine_label) for y in fine_logits]
            total = total + self.fine_weight * torch.stack(fine).mean()
        return total
