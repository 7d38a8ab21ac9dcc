"""Options of a command that its predictions depend on."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser

from .command_line import command_options, config_files, runner_options
from .device import EXPRESSIONS

__all__ = ["prediction_options"]

# Entries of a config about the scans, the location of files, the distribution of the work, and what runs the network,
# which the records name. Scans and weights are compared by their content instead.
WITHOUT_EFFECT = {
    *("imports", "bundle_root", "initialize", "run", "inferring", "collecting", "calibrating", "finalize"),
    *("dataset_dir", "input", "scans", "part", "overwrite", "report", "records", "data"),
    *("dataloader", "num_workers", "device", "gpu", "output_dir", "checkpoint", "export_dir", "no_package"),
    *("trust_file", "localiser_file", "niivue_file", "runtime"),
}


def _value(text: str) -> Any:
    """An override as the runner reads it, a switch in any letter case."""
    return DefaultParseValue(text.capitalize() if text.lower() in ("true", "false") else text)


def prediction_options() -> dict[str, Any] | None:
    """Options of the command line and its configs that predictions depend on, apart from scans and weights.

    Returns:
        ``options``: the plain values of the config (numbers, text, true and false) and the other overrides of the
        command; ``config``: a digest of the config with the overrides, without entries that do not affect predictions.
        None if another program than ``python -m monai.bundle run`` uses the config: its settings are not known here.
    """
    written = command_options()
    if not written:
        return None
    runner = runner_options()
    overrides = {
        key.replace("::", "#"): _value(text)
        for key, text in written.items()
        if key not in runner and key.replace("::", "#").split("#")[0] not in WITHOUT_EFFECT
    }
    config = ConfigParser.load_config_files(config_files(written))
    config = {key: value for key, value in config.items() if key not in WITHOUT_EFFECT}
    options = {
        key: value
        for key, value in config.items()
        if isinstance(value, (str, int, float)) and not str(value).startswith(EXPRESSIONS)
    }
    # An override of a whole entry replaces it, so that an override with the default value does not change the digest.
    whole = {key: value for key, value in overrides.items() if "#" not in key}
    nested = {key: value for key, value in overrides.items() if "#" in key}
    content = json.dumps([{**config, **whole}, nested], sort_keys=True, default=str)
    return {"options": {**options, **overrides}, "config": hashlib.sha256(content.encode()).hexdigest()}
