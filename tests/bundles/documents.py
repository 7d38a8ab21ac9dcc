"""The commands of the documentation: found, and run as they stand there, on data and in a folder that fit in a test."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from .conftest import BUNDLES, REPOSITORY

DOCUMENTS = [
    REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md")),
    *sorted((REPOSITORY / "docs/experiment").glob("*.md")),
    *(bundle / "docs" / "README.md" for bundle in BUNDLES.values()),
]  # fmt: skip
BLOCK = re.compile(r"(?:<!-- command: (\S+) -->\n)?```bash\n(.*?)```", re.DOTALL)
INLINE = re.compile(r"`((?:[A-Z_]+=\S+ )*(?:python3?|pip|torchrun|bash|git|docker|rare-unet) [^`\n]+)`")
# Tables are written by make_experiment.py, their commands are those of models.json (tests/experiment/test_scripts.py).
TABLE = re.compile(r"<!-- table: .*?<!-- /table -->", re.DOTALL)
# How a command that is not run here begins, and why.
NOT_RUN = {
    "pip install": "fetches packages; .ci/run installs '.[test]'",
    "bash .ci/run": "runs these tests",
    "npm install": "fetches packages",
    "rare-unet hippocampus my_heads": "real files of each format in test_inputs.py, test_dicom_seg.py",
    "rare-unet brain-tumour my_cases": "on small data in test_brain_tumor.py",
    "rare-unet hippocampus head.nii.gz": "the short form of a block; on other scans in test_short_command.py",
    "rare-unet train hippocampus Task04_Hippocampus": "the short form of a block of README.md",
    "rare-unet evaluate hippocampus Task04_Hippocampus": "the short form; on other data in test_short_command.py",
    "git tag": "makes a release",
    "git push": "makes a release",
    "rare-unet --help": "run in tests/cli/test_main.py",
    "python -m pytest -m slow tests/fuzz": "takes an hour",
    "python docs/experiment/scripts/average_weights.py": "needs two trainings",
    "python3 -m venv .nnunet": "nnU-Net has an environment of its own",
    ".nnunet/bin/": "nnU-Net has an environment of its own, and trains for hours",
    "cp $nnUNet_raw": "needs what nnU-Net wrote",
    "sed -i": "needs what nnU-Net wrote",
    "D=$nnUNet_raw": "needs what nnU-Net wrote",
    "S=$nnUNet_preprocessed": "needs what nnU-Net wrote",
    "python -m monai.bundle run training --splits_file $S": "on small data in test_nnunet.py",
    "python -m monai.bundle run evaluating --splits_file $S": "on small data in test_nnunet.py",
    "python docs/experiment/scripts/nnunet.py collect": "needs nnU-Net's predictions; on others in test_scripts.py",
    "python docs/experiment/scripts/make_experiment.py": "writes into the documents, see test_scripts.py",
    "python docs/experiment/scripts/benchmark.py": "measures for minutes; its parts are tested in test_scripts.py",
    "python -m tools.verify_bundle my_bundle": "stands for any bundle; one of MONAI alone in test_verify_bundle.py",
    "MONAI_LABEL_ENV=.monai_label python -m pytest tests/tools/test_monai_label.py": "needs an environment of its own",
    "PYTHONPATH=bundles/hippocampus_mri_segmentation python use.py": "its program is run in test_build_bundle.py",
    "python -m rare_unet_networks.cli.help": "writes into the documents, see tests/cli/test_main.py",
    "python -m build": "tests/tools/test_build_bundle.py runs it on a copy",
    "python docs/experiment/scripts/coarsen_dataset.py to_coarsen": "on other data in new_task.md",
    "rare-unet finetune hippocampus mixed": "on small data in test_label_resolutions.py",
    "rare-unet evaluate hippocampus mixed": "on small data in test_label_resolutions.py",
    "python docs/experiment/scripts/tumor_doubt.py": "needs the validation cases",
    "python docs/experiment/scripts/doubt.py": "needs the validation volumes",
    "python docs/experiment/scripts/speed.py": "measures for minutes; its parts are tested in test_speed.py",
    "python docs/experiment/scripts/scan_cost.py": "measures for minutes; its parts are tested in test_scan_cost.py",
    "python docs/experiment/scripts/false_alarms.py": "needs the shipped task's real scans",
    "python docs/experiment/scripts/skull_warnings.py": "needs real scans; its parts are tested in test_scripts.py",
    "python docs/experiment/scripts/skull_stripping.py": "needs real scans and deepbet",
    "python docs/experiment/scripts/clinic_series.py": "needs real scans",
    "python docs/experiment/scripts/register_modalities.py": "its parts are tested in test_scripts.py",
    "rare-unet brain-tumour export": "needs what clinic_series.py wrote; on other scans in test_brain_tumor.py",
    "rare-unet brain-tumour registered": "needs what register_modalities.py wrote",
    "torchrun --standalone --nproc_per_node=2 -m monai.bundle run training --config_file "
    "\"['configs/train.json','configs/multi_gpu_train.json']\" …": "is cut short; the other bundle's is run",
}
# Numbers of the documentation that are made smaller.
SMALLER = [
    (re.compile(r"--(max_epochs|val_interval) \d+"), r"--\1 1"),
    (re.compile(r"\[256,256,128\]"), "[64,32,32]"),
]


def blocks(path):
    """(number of the line, text) of each block of commands that .ci/run does not run."""
    text = path.read_text()
    found = []
    for match in BLOCK.finditer(text):
        if match[1] is None:
            found.append((text[: match.start(2)].count("\n") + 1, match[2]))
        else:  # the names that .ci/run goes through
            assert re.search(rf"for name in .*\b{match[1]}\b", (REPOSITORY / ".ci/run").read_text()), match[1]
    return found


def programs(path):
    """The Python programs of a document."""
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)


def inline(path):
    """Commands within the text, outside of blocks and tables."""
    return INLINE.findall(BLOCK.sub("", TABLE.sub("", path.read_text())))


def why_not(line):
    """Why a line is not run; None where it is."""
    return next((why for start, why in NOT_RUN.items() if line.strip().startswith(start)), None)


def lines(script):
    """A block's lines, those that are continued in one."""
    return script.replace("\\\n", " ").splitlines()


def runnable(script):
    """A block without what is not run, and with smaller numbers."""
    text = "\n".join(":" if why_not(line) else line for line in lines(script))
    for pattern, smaller in SMALLER:
        text = pattern.sub(smaller, text)
    return text


# The installed command would find the repository's bundles, not the small ones of a test.
RARE_UNET = 'rare-unet() { python -m rare_unet_networks "$@" --bundle .; }'


def run_script(script, folder, **variables):
    """Runs a block with bash, which stops at the first error; ``python`` and ``torchrun`` are this environment's."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **variables}
    words = ["bash", "-euo", "pipefail", "-c", f"{RARE_UNET}\n{runnable(script)}"]
    result = subprocess.run(
        words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert result.returncode == 0, f"{runnable(script)}\n{result.stdout}"
    outputs = re.findall(r"(?:--output_dir|-o) ([^\s$]+)", runnable(script))
    assert [o for o in outputs if not any((folder / o).iterdir())] == []
    return result.stdout


def small_copy(bundle, folder, splits, **changes):
    """A bundle whose trainings are short, and whose lists of cases are others."""
    copied = folder / bundle.name
    shutil.copytree(bundle, copied, ignore=shutil.ignore_patterns("output", "data"))
    shorten(copied.rglob("configs/**/*.json"), splits, **changes)
    return copied


def shorten(paths, splits, **changes):
    """Makes the trainings of configs short, and the lists of cases others."""
    for path in paths:
        content = json.loads(path.read_text())
        if path.name.startswith("splits"):
            content = splits
        for key, value in {"max_epochs": 1, **changes}.items():
            holder, _, last = key.rpartition("#")
            where = content.get(holder) if holder else content
            if where and last in where:
                where[last] = value
        path.write_text(json.dumps(content))
