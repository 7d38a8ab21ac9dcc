"""Crops a training scan to its structure and a random margin, so that the network does not depend on the box."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform, SpatialCrop
from monai.transforms.utils import generate_spatial_bounding_box

__all__ = ["RandMarginCropd"]


class RandMarginCropd(RandomizableTransform, MapTransform):
    """Crops to the box of the label's foreground plus a random margin at each face, within the scan.

    The margins of opposite faces are independent, so the structure lies off centre in most boxes.

    Args:
        keys: images and labels on one grid, shape (C, *spatial_size).
        label_key: the label; without foreground nothing is cropped.
        margin: range of the margin in voxels. A negative margin cuts the structure.
        prob: probability of a crop.

    Raises:
        ValueError: if ``margin`` is not a range.

    Example::

        crop = RandMarginCropd(["image", "label"], "label", margin=(2, 2))
        crop({"image": image, "label": label})  # foreground of 10×10×10 voxels: both 14×14×14
    """

    def __init__(
        self, keys: KeysCollection, label_key: str = "label", margin: tuple[int, int] = (0, 16), prob: float = 1.0
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        if len(margin) != 2 or margin[0] > margin[1]:
            raise ValueError(f"margin must be a range (smallest, largest) in voxels, got {tuple(margin)}.")
        self.label_key = label_key
        self.margin = tuple(int(m) for m in margin)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        self.randomize(None)
        label = d[self.label_key]
        if not self._do_transform or not bool((label > 0).any()):
            return d
        spatial_dims = label.ndim - 1
        margins = self.R.randint(self.margin[0], self.margin[1] + 1, size=(2, spatial_dims))
        start, stop = generate_spatial_bounding_box(label)
        start = [max(0, s - int(m)) for s, m in zip(start, margins[0])]
        stop = [min(n, s + int(m)) for n, s, m in zip(label.shape[1:], stop, margins[1])]
        stop = [max(e, s + 1) for s, e in zip(start, stop)]
        crop = SpatialCrop(roi_start=start, roi_end=stop)
        for key in self.keys:
            d[key] = crop(d[key])
        return d
