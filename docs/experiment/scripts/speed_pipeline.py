"""One command of the hippocampus's inference, timed scan by scan, for speed.py."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from experiment_tasks import HIPPOCAMPUS, Task
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from scan_cost import coarser

SPACINGS = {"1 mm": (1.0, 1.0, 1.0), "2 mm": (2.0, 2.0, 2.0), "4 mm": (4.0, 4.0, 4.0), "1×1×5 mm": (1.0, 1.0, 5.0)}
QUIET = dict(report=False, device="cpu", logging_file=False)


class Clock:
    """What all times are measured with: ``time.perf_counter`` or, for CPU seconds, ``time.process_time``."""

    now = time.perf_counter


def scan_of(file: Path, spacing: Sequence[float], folder: Path) -> Path:
    """The scan at another voxel size."""
    target = folder / f"{file.name.split('.')[0]}_{'x'.join(map(str, spacing))}.nii.gz"
    return Path(shutil.copy(file, target)) if spacing == SPACINGS["1 mm"] else coarser(file, spacing, target)


def peak() -> float:
    """Gigabytes that this process has had at most; its parent's do not count, as they do in ``getrusage``."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def workflow_of(task: Task, **options: object) -> ConfigWorkflow:
    """The inference of a bundle, ready to run."""
    options = {"bundle_root": str(task.bundle), "trust": False, **QUIET, **options}
    workflow = ConfigWorkflow(str(task.bundle / "configs/inference.json"), workflow_type="infer", **options)
    workflow.initialize()
    return workflow


def check_openvino(runtime: str) -> None:
    """Checks what ``--runtime auto`` has used, in the words of the records: tables must not call eager OpenVINO.

    Raises:
        RuntimeError: if it is not OpenVINO at all levels.
    """
    if not runtime.startswith("openvino ") or "eager" in runtime:
        raise RuntimeError(f"--runtime auto must use OpenVINO at all levels to be measured, got {runtime}.")


def pipeline(scan: Path, runtime: str, runs: int, folder: Path, **options: object) -> dict[str, object]:
    """Median seconds of a scan, and the memory after the first and the last one, of one command with several copies."""
    inputs, output = folder / "inputs", folder / "output"
    for path in (inputs, output):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
    for i in range(runs + 1):
        shutil.copy(scan, inputs / f"scan{i}.nii.gz")
    workflow = workflow_of(HIPPOCAMPUS, input=str(inputs), output_dir=str(output), runtime=runtime, **options)
    evaluator = workflow.parser.get_parsed_content("evaluator")
    times, memory = [], []

    def note() -> None:
        times.append(Clock.now())
        memory.append(peak())

    evaluator.add_event_handler(Events.ITERATION_COMPLETED, note)
    start = Clock.now()
    evaluator.run()
    if len(times) != runs + 1 or evaluator.failures:
        raise RuntimeError(f"{scan}: {evaluator.failures or 'not all copies were segmented'}")
    record = workflow.parser.get_parsed_content("records").read(f"scan{runs}")
    if runtime == "auto":
        check_openvino(record["runtime"])
    return {
        "seconds": median(b - a for a, b in zip(times, times[1:])),
        "level": record["level"],
        "total": times[-1] - start,
        "memory": (memory[0], memory[-1]),
    }
