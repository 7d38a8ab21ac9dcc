"""Scores per case, acquisition, grid and class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ignite.engine import Engine
from ignite.metrics import Metric

from ..utils.distributed import all_gather, world_size
from .multi_scale import MultiScaleMetrics
from .summary import SUMMARY_ROW, mean_or_nan, summarise

__all__ = ["AcquisitionMetrics"]

KEY = ("case", "spacing", "profile", "grid", "class")


class AcquisitionMetrics(MultiScaleMetrics):
    """:py:class:`MultiScaleMetrics` for simulated acquisitions: rows name spacing, profile and the level entered.

    Reads ``spacing`` and ``profile`` of every item, see :py:func:`rare_unet_networks.data.expand_acquisitions`. The
    value is the mean over acquisitions on the full grid. The level is that of the ``route`` in a prediction's metadata.
    """

    columns = ("case", "spacing", "profile", "level", "grid", "class", "dice", "volume_error", "hd95")
    group, summary_columns = "acquisition", ("acquisition", *SUMMARY_ROW[1:])

    def _key(self, item: Mapping[str, Any], grid: str) -> tuple:
        return item["case"], item["spacing"], item["profile"], item["pred"].meta["route"].level, grid

    def compute(self) -> float:
        if world_size() > 1:
            # A distributed sampler may repeat cases to fill the last batch: count each once.
            self.rows = list({tuple(r[k] for k in KEY): r for part in all_gather(self.rows) for r in part}.values())
        named = [{**row, "scale": f"{row['spacing']} {row['profile']}"} for row in self.rows]
        lines = [s for s in summarise(named, self.regions) if s["scale"] != "average"]
        self.summary = [dict(zip(self.summary_columns, (s[column] for column in SUMMARY_ROW))) for s in lines]
        return mean_or_nan([s["mean"] for s in self._means() if s["grid"] == "full"])

    def _means(self) -> list[dict[str, Any]]:
        return [s for s in self.summary if s["class"] == "mean" and s["measure"] == "dice"]

    def completed(self, engine: Engine, name: str) -> None:
        Metric.completed(self, engine, name)
        for s in self._means():
            engine.state.metrics[f"{name}_{s['grid']}_{s['acquisition'].replace(' ', '_')}"] = s["mean"]
