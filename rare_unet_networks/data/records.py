"""One record per case: a JSON file beside each prediction that says what it was made of, how, and what it comes to."""

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
from ..utils.files import replaced_as_a_whole, sha256
from ..utils.switches import is_on
from .datalists import FAILURE, case_id, prediction_path

__all__ = ["CaseRecords", "claim_path", "read_record", "record_path", "volume_rows"]

logger = logging.getLogger(__name__)
NAMED = 20  # skipped scans that the log names


def record_path(prediction: Path) -> Path:
    """The record of a prediction's file."""
    return prediction.with_name(prediction.name.removesuffix(".nii.gz") + ".json")


def claim_path(prediction: Path) -> Path:
    """The claim of a process that makes a prediction's file."""
    return prediction.with_name("." + prediction.name.removesuffix(".nii.gz") + ".claim")


def volume_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A record's rows in ``volumes.csv``, one per class. Entries that are not known here are left out.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: when the record is damaged.
    """
    spacing = "x".join(f"{float(s):.4g}" for s in record["spacing"])
    rows = []
    for name, volume in record["volumes"].items():
        fine = volume.get("mm3_fine")
        rows.append(
            {
                "case": str(record["case"]),
                "class": name,
                "voxels": int(volume["voxels"]),
                "mm3": float(volume["mm3"]),
                "mm3_fine": "" if fine is None else float(fine),
                "spacing": spacing,
                "level": int(record["level"]),
                "seconds": float(record["seconds"]),
            }
        )
    return rows


def read_record(path: Path) -> dict[str, Any] | None:
    """A record; None where there is none, or one that is damaged."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        volume_rows(record)
    except (OSError, AttributeError, KeyError, TypeError, ValueError):
        return None
    return record


def _files(item: Mapping) -> dict[str, str]:
    """Files of a scan by modality; a scan of one file has it as ``image``."""
    image = item["image"]
    return {str(k): str(p) for k, p in image.items()} if isinstance(image, Mapping) else {"image": str(image)}


def _case(item: Mapping) -> str:
    return str(item.get("case") or case_id(next(iter(_files(item).values()))))


def _with_digest(path: str) -> dict[str, str]:
    return {"file": str(Path(path).absolute()), "sha256": sha256(path)}


def _digest(entry: Any) -> Any:
    """The digest in an entry of a record. The file itself may have been moved."""
    return entry.get("sha256") if isinstance(entry, Mapping) else None


def _part_of(items: Sequence[dict], part: str) -> list[dict]:
    """The items of a part ``k/n``: every n-th one, from the k-th.

    Raises:
        ValueError: when ``part`` is not of that form, or k not within 1 and n.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", str(part))
    k, n = map(int, match.groups()) if match else (0, 0)
    if not 1 <= k <= n:
        raise ValueError(f"part must be k/n with k from 1 to n, such as 3/100, got {part!r}.")
    return list(items[k - 1 :: n])


class CaseRecords:
    """The records of a folder of predictions, and the claims of those at work on them.

    A record is ``<case>_seg.json`` beside ``<case>_seg.nii.gz``. It is written last, to a temporary name that is then
    renamed, and removed first when a case is done again: a record describes the prediction beside it. Any number of
    processes can work into one folder, whoever started them: each claims a case before it begins with it
    (:py:class:`rare_unet_networks.utils.Claims`).

    Args:
        folder: folder of the predictions.
        grid: their grid, see :py:func:`rare_unet_networks.data.prediction_path`.
        checkpoint: file of the weights.
        options: ``options`` and ``config`` as of :py:func:`rare_unet_networks.bundle.prediction_options`. Without them
            nothing that an earlier run made counts as done.

    Raises:
        ValueError: when ``grid`` is unknown.
    """

    def __init__(self, folder: str, grid: str, checkpoint: str, options: Mapping[str, Any] | None = None) -> None:
        prediction_path("", grid, folder)  # an unknown grid is an error here, not after the first case
        self.folder = Path(folder)
        self.grid = grid
        self.checkpoint = checkpoint
        self.options_known = options is not None
        # A word that the processes of this command share and no other command has.
        self.options = options or {"options": {}, "config": broadcast_from_rank0(uuid.uuid4().hex)}
        self._claims = Claims()
        self._scans: dict[str, dict[str, dict[str, str]]] = {}  # files and their digests, by case
        self._redone: dict[str, int] = {}  # when the records to be made anew were written

    def prediction(self, case: str) -> Path:
        """The file of a case's prediction."""
        return prediction_path(case, self.grid, self.folder)

    @cached_property
    def _weights(self) -> dict[str, str]:
        try:
            return _with_digest(self.checkpoint)
        except OSError:  # the network may have its weights from elsewhere; then no case counts as done
            return {}

    def _path(self, case: str) -> Path:
        return record_path(self.prediction(case))

    def pending(self, items: Sequence[dict], part: str = "1/1", overwrite: bool | str = False) -> list[dict]:
        """The scans that are left to do; of several processes the first decides for all.

        Args:
            items: scans as of :py:func:`rare_unet_networks.data.input_datalist`.
            part: ``"k/n"``, every n-th scan from the k-th.
            overwrite: leave nothing out, but what other processes do from now on.

        Raises:
            ValueError: when ``part`` is not of that form, or ``overwrite`` neither true nor false.
        """
        items = _part_of(items, part)
        _ = self._weights  # read before the network reads them: a file that changes later is not what it has
        usable = [item for item in items if FAILURE not in item]
        if is_on(overwrite) or not self.options_known:
            self._redone = broadcast_from_rank0({case: self._written(case) for case in map(_case, usable)})
            return items
        done = broadcast_from_rank0([_case(item) for item in usable if rank() == 0 and self.is_done(item)])
        if done:
            names = f"{', '.join(done[:NAMED])}{', …' if len(done) > NAMED else ''}"
            logger.info(
                f"{len(done)} of {len(items)} are done, with the same scans, weights and options, and are skipped "
                f"(--overwrite true does them again): {names}"
            )
        skipped = set(done)
        return [item for item in items if FAILURE in item or _case(item) not in skipped]

    def is_done(self, item: Mapping) -> bool:
        """Whether a case's prediction is there, made of the same scan and weights with the same options."""
        case = _case(item)
        record = read_record(self._path(case))
        if record is None or not self.prediction(case).exists():
            return False
        if self._redone.get(case) == self._written(case):
            return False
        same = (record.get("case"), record.get("grid"), record.get("config"))
        if same != (case, self.grid, self.options["config"]) or not isinstance(record.get("scans"), Mapping):
            return False
        try:
            scans = {name: sha256(path) for name, path in _files(item).items()}
        except OSError:
            return False
        recorded = {name: _digest(entry) for name, entry in record["scans"].items()}
        weights = _digest(record.get("weights"))
        return recorded == scans and weights is not None and weights == _digest(self._weights)

    def _written(self, case: str) -> int:
        try:
            return self._path(case).stat().st_mtime_ns
        except OSError:
            return 0

    def acquire(self, item: Mapping) -> bool:
        """Claims a case for this process, unless another is at work on it or has done it."""
        case = _case(item)
        claim = claim_path(self.prediction(case))
        if not self._claims.acquire(claim):
            return False
        if FAILURE not in item and self.is_done(item):
            self._claims.release(claim)
            return False
        try:
            self._scans[case] = {name: _with_digest(path) for name, path in _files(item).items()}
        except OSError:  # what cannot be read fails when it is its turn
            self._scans[case] = {}
        return True

    def release(self) -> None:
        """Gives back the claims of cases that failed, so that others may try them."""
        self._claims.release_all()

    def begin(self, case: str) -> None:
        """Removes the record of a case whose prediction is about to be replaced."""
        self._path(case).unlink(missing_ok=True)

    def write(self, case: str, **measured: Any) -> dict[str, Any]:
        """Writes the record of a case whose prediction is written, and gives its claim back.

        Args:
            case: the case.
            measured: ``volumes`` by class, each with ``voxels``, ``mm3`` and ``mm3_fine``; ``spacing`` in mm, ``level``
                and ``seconds``; and whatever else is to be recorded.

        Returns:
            the record.
        """
        from .. import __version__  # the package is not complete before

        record = {
            "case": case,
            "grid": self.grid,
            "version": __version__,
            "scans": self._scans.get(case, {}),
            "weights": self._weights,
            **self.options,
            **measured,
        }
        with replaced_as_a_whole(self._path(case)) as temporary:
            temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        self._claims.release(claim_path(self.prediction(case)))
        return record
