"""The model of trust of a command."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ..utils.files import sha256
from ..utils.trust import trust_mode
from ..utils.trust_model import TrustModel, load_trust_model

__all__ = ["trust_model"]

logger = logging.getLogger(__name__)


def trust_model(
    trust: bool | str, file: str | Path | None, checkpoint: str | Path, class_names: Sequence[str]
) -> TrustModel | None:
    """Reads the model that was fitted to the predictions of these weights.

    Args:
        trust: the option ``trust``.
        file: the model; None for none.
        checkpoint: the weights.
        class_names: classes above background.

    Returns:
        None if ``trust`` is false or there is no file. Also None, with a warning in the log, for other weights than
        those that it was fitted to: its estimates would be wrong.

    Raises:
        ValueError: if the file is no model, or has other classes.
    """
    if trust_mode(trust) == "false" or file is None:
        return None
    if not Path(checkpoint).is_file():
        return None  # the loader of the weights says so
    missing = not Path(file).is_file()
    model = None if missing else load_trust_model(file)
    if model is None or model.weights_sha256 != sha256(checkpoint):
        reason = "does not exist" if missing else "was fitted to other weights"
        logger.warning(
            f"{file} {reason}: no expected Dice for the weights {checkpoint}, only the agreement of two predictions "
            "(run calibrating fits it)"
        )
        return None
    if model.class_names != list(class_names):
        raise ValueError(f"{file}: expected the classes {list(class_names)}, got {model.class_names}.")
    return model
