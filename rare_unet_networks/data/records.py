"""One record per case: a JSON file beside each prediction with its inputs, options and volumes."""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ..utils.claims import Claims
from ..utils.distributed import broadcast_from_rank0, rank
from ..utils.files import write_text
from ..utils.switches import is_on
from .bids_files import bids_sidecar
from .datalists import FAILURE, case_id, files_of, prediction_path
from .dicom_seg import dicom_seg_path
from .digests import digest, digest_of, digests, with_digest
from .record_files import REFUSED_STATUS, claim_path, is_refused, read_record, record_path, recorded_files

__all__ = ["CaseRecords"]

logger = logging.getLogger(__name__)
NAMED = 20  # at most so many skipped scans are named in the log


def _scans(item: Mapping) -> dict[str, list[str]]:
    """Returns the files of a scan by modality, of a DICOM series many; without modalities under ``image``."""
    image = item["image"]
    return {str(k): files_of(e) for k, e in (image if isinstance(image, Mapping) else {"image": image}).items()}


def _case(item: Mapping) -> str:
    return str(item.get("case") or case_id(next(iter(_scans(item).values()))[0]))


def _part_of(items: Sequence[dict], part: str) -> list[dict]:
    """Returns the items of part ``k/n``: every n-th item, starting with the k-th.

    Raises:
        ValueError: If ``part`` has another form, or k is not between 1 and n.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", str(part))
    k, n = map(int, match.groups()) if match else (0, 0)
    if not 1 <= k <= n:
        raise ValueError(f"part must be k/n with k from 1 to n, such as 3/100, got {part!r}.")
    return list(items[k - 1 :: n])


class CaseRecords:
    """Manages the records of a folder of predictions, and the claims of the processes that write there.

    A record is ``<case>_seg.json`` beside ``<case>_seg.nii.gz``. It is written last, to a temporary name that is then
    renamed, and removed first when a case is repeated, so that it always describes the prediction beside it. Any number
    of independent processes can write into one folder: each claims a case before it starts with it
    (:py:class:`rare_unet_networks.utils.Claims`).

    Args:
        folder: folder of the predictions.
        grid: their grid, see :py:func:`rare_unet_networks.data.prediction_path`.
        checkpoint: file of the weights.
        options: ``options`` and ``config`` as of :py:func:`rare_unet_networks.bundle.prediction_options`. Without them
            no case of an earlier run counts as done.
        models: further files that the predictions and their records depend on, by name, such as the localiser's
            weights. They are recorded with their digests; those that are None or do not exist are left out.

    Attributes:
        total: number of cases of this command, after :py:meth:`pending`.
        done: those that were done before it.
        left_to_others: those that other processes have claimed, or have done since.

    Raises:
        ValueError: If ``grid`` is unknown.
    """

    def __init__(
        self,
        folder: str,
        grid: str,
        checkpoint: str,
        options: Mapping[str, Any] | None = None,
        models: Mapping[str, str | None] | None = None,
    ) -> None:
        prediction_path("", grid, folder)  # an unknown grid is an error here, not after the first case
        self.folder = Path(folder)
        self.grid = grid
        self.checkpoint = checkpoint
        self.models = dict(models or {})
        self.options_known = options is not None
        # An id that the processes of this command share and no other command has.
        self.options = options or {"options": {}, "config": broadcast_from_rank0(uuid.uuid4().hex)}
        self._claims = Claims()
        self._scans: dict[str, dict[str, dict[str, str]]] = {}  # files and their digests, by case
        self.total = 0
        self.done: list[str] = []
        self.left_to_others: set[str] = set()
        self._redone: dict[str, int] = {}  # modification times of the records to replace, by case

    def prediction(self, case: str) -> Path:
        """Returns the file of a case's prediction."""
        return prediction_path(case, self.grid, self.folder)

    def _files(self, case: str) -> list[Path]:
        """Files that a case must have beside its record to be done."""
        prediction = self.prediction(case)
        with_dicom_seg = is_on(self.options["options"].get("dicom_seg", False))
        return [prediction, dicom_seg_path(prediction)] if with_dicom_seg else [prediction]

    def files_by_modality(self, case: str) -> list[list[str]]:
        """Returns the files of each modality of a case that this process has claimed."""
        return [recorded_files(scan) for scan in self._scans.get(case, {}).values()]

    @cached_property
    def _weights(self) -> dict[str, str]:
        try:
            return with_digest([self.checkpoint])
        except OSError:  # the network may get its weights elsewhere; then no case counts as done
            return {}

    @cached_property
    def _models(self) -> dict[str, dict[str, str]]:
        return {name: with_digest([file]) for name, file in self.models.items() if file and Path(file).is_file()}

    def _path(self, case: str) -> Path:
        return record_path(self.prediction(case))

    def pending(self, items: Sequence[dict], part: str = "1/1", overwrite: bool | str = False) -> list[dict]:
        """Returns the scans that are not done. With several processes, rank 0 decides for all.

        Args:
            items: scans, see :py:func:`rare_unet_networks.data.input_datalist`.
            part: ``"k/n"``, every n-th scan, starting with the k-th.
            overwrite: repeat scans that are done, unless another process has repeated them since.

        Raises:
            ValueError: If ``part`` has another form, or ``overwrite`` is neither true nor false.
        """
        items = _part_of(items, part)
        self.total = len(items)
        _ = self._weights, self._models  # read before the network loads the files, which may change later
        usable = [item for item in items if FAILURE not in item]
        if is_on(overwrite) or not self.options_known:
            self._redone = broadcast_from_rank0({case: self._time_written(case) for case in map(_case, usable)})
            return items
        self.done = broadcast_from_rank0([_case(item) for item in usable if rank() == 0 and self.is_done(item)])
        if self.done:
            names = f"{', '.join(self.done[:NAMED])}{', …' if len(self.done) > NAMED else ''}"
            logger.info(
                f"{len(self.done)} of {len(items)} are done, with the same scans, weights and options, and are skipped "
                f"(--overwrite true does them again): {names}"
            )
        skipped = set(self.done)
        return [item for item in items if FAILURE in item or _case(item) not in skipped]

    def read(self, case: str) -> dict[str, Any] | None:
        """Reads the record of a case; None if it is missing or damaged."""
        return read_record(self._path(case))

    def is_done(self, item: Mapping) -> bool:
        """Whether a case has a prediction from the same scan, weights and options."""
        case = _case(item)
        record = self.read(case)
        if record is None or is_refused(record) or not all(path.exists() for path in self._files(case)):
            return False
        if self._redone.get(case) == self._time_written(case):
            return False
        identity = (record.get("case"), record.get("grid"), record.get("config"))
        if identity != (case, self.grid, self.options["config"]) or not isinstance(record.get("scans"), Mapping):
            return False
        try:
            scans = {name: digest_of(files) for name, files in _scans(item).items()}
        except OSError:
            return False
        recorded = digests(record["scans"])
        weights = digest(record.get("weights"))
        is_same = recorded == scans and digests(record.get("models", {})) == digests(self._models)
        return is_same and weights is not None and weights == digest(self._weights)

    def _time_written(self, case: str) -> int:
        try:
            return self._path(case).stat().st_mtime_ns
        except OSError:
            return 0

    def acquire(self, item: Mapping) -> bool:
        """Claims a case for this process. Returns False if another process works on it or has done it."""
        case = _case(item)
        claim = claim_path(self.prediction(case))
        is_ours = self._claims.acquire(claim)
        if is_ours and FAILURE not in item and self.is_done(item):
            self._claims.release(claim)
            is_ours = False
        if not is_ours:
            self.left_to_others.add(case)
            return False
        self.left_to_others.discard(case)
        try:
            self._scans[case] = {name: with_digest(files) for name, files in _scans(item).items()}
        except OSError:  # an unreadable file becomes a failure when it is loaded
            self._scans[case] = {}
        return True

    def release(self) -> None:
        """Releases the claims of cases that failed, so that other processes may try them."""
        self._claims.release_all()

    def begin(self, case: str) -> None:
        """Removes the record of a case before its prediction is replaced."""
        self._path(case).unlink(missing_ok=True)

    def write_refused(self, case: str, reason: str, spacing: Sequence[float]) -> dict[str, Any]:
        """Writes the record of a case that was refused, and removes an older prediction: it must not lie beside it.

        Args:
            case: the case.
            reason: why it was refused.
            spacing: voxel size of the scan, mm.

        Returns:
            the record.
        """
        self.prediction(case).unlink(missing_ok=True)
        refused = {"status": REFUSED_STATUS, "spacing": list(spacing), "level": None, "seconds": None, "side": None}
        return self.write(case, **refused, doubt=None, review=[reason], volumes={})

    def write(self, case: str, **measured: Any) -> dict[str, Any]:
        """Writes the record of a case after its prediction, and releases the claim.

        Args:
            case: the case.
            measured: ``volumes`` by class, each with ``voxels``, ``mm3`` and ``mm3_fine``; ``spacing`` in mm, ``level``
                and ``seconds``; and any other entries.

        Returns:
            the record.
        """
        from .. import __version__  # imported here because the package imports this module first

        record = {
            "case": case,
            "grid": self.grid,
            "version": __version__,
            "scans": self._scans.get(case, {}),
            "weights": self._weights,
            **({"models": self._models} if self._models else {}),
            **self.options,
            **measured,
            **bids_sidecar(case, self.grid, [scan["file"] for scan in self._scans.get(case, {}).values()]),
        }
        write_text(self._path(case), json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        self._claims.release(claim_path(self.prediction(case)))
        return record
