"""Every command of the documentation is run, held against what it calls, or listed with the reason why not."""

import ast
import inspect
import json
import re
import shutil
import subprocess

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import download

from rare_unet_networks.bundle import check_command_line, command_line, overrides

from .conftest import BUNDLES, REPOSITORY, SAMPLE
from .documents import DOCUMENTS, NOT_RUN, blocks, inline, lines, programs, run_script, shorten, small_copy, why_not
from .test_brain_tumor import heads  # noqa: F401

NAMES = {path: str(path.relative_to(REPOSITORY)) for path in DOCUMENTS}
# The blocks of these are run as they stand there by test_new_task.py and test_verify_bundle.py.
ELSEWHERE = [REPOSITORY / "docs" / f"{name}.md" for name in ("new_task", "verify")]
# What these say is run, with other data and options, by test_many_machines.py, test_tracking.py, test_build_bundle.py,
# and, where their programs are installed, test_exports.py, test_monai_label.py. Here: that its words are right.
READ = [REPOSITORY / "docs" / f"{name}.md" for name in ("many_machines", "downloads", "exports", "monai_label")]
BLOCKS = [(path, line, text) for path in DOCUMENTS if path not in ELSEWHERE + READ for line, text in blocks(path)]
READ_BLOCKS = [(path, line, text) for path in READ for line, text in blocks(path)]
EXPERIMENT = REPOSITORY / "docs/experiment"
# What the experiment's documents and many_machines.md say their variables are.
VARIABLES = {"C": "bundles/hippocampus_mri_segmentation/configs", "D": "Task04_Hippocampus"}
VARIABLES_OF = {
    EXPERIMENT / "README.md": {**VARIABLES, "E": "docs/experiment/overlays"},
    EXPERIMENT / "brain_tumor.md": {
        "C": "bundles/brain_tumor_mri_segmentation/configs",
        "D": "Task01_BrainTumour",
        "E": "docs/experiment/overlays",
    },
}
# Instead of being run, a command prints its words, one a line, and an empty line.
PRINTED = "\n".join(
    f"{name}() {{ printf '%s\\n' {name} \"$@\" ''; }}" for name in ("python", "torchrun", "pip", "srun", "scontrol")
)


def cases(root):
    return sorted(p.name.split(".")[0] for p in (root / "imagesTr").iterdir())


@pytest.fixture(scope="module")
def repository(tiny, heads, tmp_path_factory):  # noqa: F811
    """A folder like the repository, of small bundles, with the data that the documents name beside them."""
    root = tmp_path_factory.mktemp("repository")
    (root / "bundles").mkdir()
    shutil.copytree(REPOSITORY / "tools", root / "tools")  # not a link: they know the bundles by where they lie
    train, validation = cases(tiny)[:2], cases(tiny)[2:]
    shipped = cases(SAMPLE / "Task04_Hippocampus")
    splits = {"train": train, "validation": validation + shipped, "test": []}
    experiment = root / "docs/experiment"
    shutil.copytree(EXPERIMENT, experiment, ignore=shutil.ignore_patterns("*.npz", "*.png", "__pycache__"))
    paper_splits = {"paper_train": train, "paper_test": validation, "paper_compared": validation}
    paper_splits["validation"] = validation
    (experiment / "hippocampus/splits_paper.json").write_text(json.dumps(paper_splits))
    shorten((experiment / "overlays").rglob("*.json"), splits)
    for bundle in BUNDLES.values():
        changes = {"patch_size": [64, 32, 32], "levels#spatial_size": [64, 32, 32]} if "brain" in bundle.name else {}
        small_copy(bundle, root / "bundles", splits, **changes)
    # The paper's network is large; what its configs do is the same with a small one.
    paper = experiment / "overlays/brain_tumor/paper_network.json"
    content = json.loads(paper.read_text())
    assert content["network_def#channels"] == [32, 64, 128, 256, 320, 320]
    paper.write_text(json.dumps({**content, "network_def#channels": [2, 4, 4, 4, 4, 4]}))
    for folder in (root, *(root / "bundles").iterdir()):
        for name, data in (("Task04_Hippocampus", tiny), ("Task01_BrainTumour", heads), ("my_dataset", tiny)):
            (folder / name).symlink_to(data)
        (folder / "my_splits.json").symlink_to(tiny / "splits.json")
        (folder / "my_patients").mkdir()
        shutil.copy(heads / "imagesTr" / "a.nii.gz", folder / "my_patients")
        (folder / "my_scans").mkdir()
        for target in ("scan.nii.gz", "my_scans"):
            shutil.copy(SAMPLE / "images" / "icbm152_left_2mm.nii.gz", folder / target)
    # Another program's predictions: here the labels, coarse by every second, fourth, … voxel.
    for case in validation:
        label = nib.load(tiny / "labelsTr" / f"{case}.nii.gz")
        for level, scale in enumerate(("1", "0.5", "0.25", "0.125")):
            prediction = root / "nn" / "predictions" / "up" / scale / f"{case}.nii.gz"
            prediction.parent.mkdir(parents=True, exist_ok=True)
            step = 2**level
            data = np.asarray(label.dataobj)[::step, ::step, ::step]
            nib.save(nib.Nifti1Image(data, label.affine @ np.diag([step, step, step, 1])), prediction)
    return root


def block(path, line, text):
    """Those of the experiments take longest; commands of a README are always run, trainings those of the first page."""
    is_readme = path.name == "README.md" and path.parent != EXPERIMENT
    is_long = (" training " in text or " calibrating " in text) and path != REPOSITORY / "README.md"
    marks = [] if is_readme and not is_long else [pytest.mark.slow]
    return pytest.param(path, line, text, id=f"{NAMES[path]}:{line}", marks=marks)


@pytest.mark.parametrize("path, line, text", [block(*found) for found in BLOCKS])
def test_the_commands_of_a_block_run(repository, path, line, text):
    bundle = path.parents[1].name
    folder = repository / "bundles" / bundle if bundle in BUNDLES else repository
    run_script(text, folder, **VARIABLES_OF.get(path, {}))


def commands(script):
    """The words of every command of a block, as bash takes them apart."""
    words = ["bash", "-eo", "pipefail", "-c", f"{PRINTED}\n{script}"]
    result = subprocess.run(words, env=VARIABLES, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return [command.splitlines() for command in result.stdout.split("\n\n") if command]


def options(words):
    return [word.split("=")[0] for word in words if word.startswith("--")]


@pytest.mark.parametrize("path, line, text", READ_BLOCKS, ids=[f"{NAMES[p]}:{line}" for p, line, _ in READ_BLOCKS])
def test_the_words_of_a_command_that_is_run_otherwise_are_known_to_what_it_calls(path, line, text, monkeypatch):
    monkeypatch.setattr(overrides, "EXISTING", ())  # data of the reader's
    monkeypatch.setattr(command_line, "find_spec", lambda name: True)  # and trackers
    monkeypatch.setattr("sys.excepthook", lambda *error: None)  # which the check replaces: put back afterwards
    monkeypatch.chdir(REPOSITORY)
    for words in commands(text):
        if "monai.bundle" in words and "run" in words:
            rest = words[words.index("run") :]
            for name in ("RANK", "WORLD_SIZE"):  # as torchrun sets them
                monkeypatch.delenv(name, raising=False)
                if "torchrun" in words:
                    monkeypatch.setenv(name, "2")
            assert rest[1] in ("training", "evaluating", "inferring", "exporting", "collecting")
            check_command_line(["monai/bundle/__main__.py", *rest])
        elif "monai.bundle" in words:
            assert words[3] == "download"
            known = [f"--{name}" for name in inspect.signature(download).parameters]
            assert set(options(words)) <= set(known)
        elif words[0] == "python":
            source = (REPOSITORY / words[1]).read_text()
            assert [word for word in options(words) if f'"{word}"' not in source] == []
        else:
            assert words[:2] == ["pip", "install"], words


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES.values())
def test_commands_within_the_text_are_listed(path):
    """They are not run: one that can be belongs into a block."""
    assert [command for command in inline(path) if not why_not(command)] == []


def test_what_is_listed_as_not_run_stands_in_a_document():
    commands = [line.strip() for path in DOCUMENTS for _, text in blocks(path) for line in lines(text)]
    commands += [command for path in DOCUMENTS for command in inline(path)]
    assert [start for start in NOT_RUN if not any(command.startswith(start) for command in commands)] == []


def test_the_python_api_gives_the_shapes_it_says(tmp_path, monkeypatch):
    (tmp_path / "bundles").symlink_to(REPOSITORY / "bundles")
    (tmp_path / "my_scans").mkdir()
    shutil.copy(SAMPLE / "images" / "icbm152_left_2mm.nii.gz", tmp_path / "my_scans")
    monkeypatch.chdir(tmp_path)
    names = {}
    checked = 0
    for code in programs(REPOSITORY / "docs/python_api.md"):
        exec(code, names)
        for name, shape in re.findall(r"^ *(\w+) = .*  # (\([\d, ]*\))$", code, re.MULTILINE):
            assert tuple(names[name].shape) == ast.literal_eval(shape), name
            checked += 1
        for expression, value in re.findall(
            r"^(levels\..*|on_scan\.meta.*|(?:list\()?result\..*|route\..*)  # (\d+|[(\[].*[)\]])(?::.*)?$",
            code,
            re.MULTILINE,
        ):
            assert eval(expression, names) == ast.literal_eval(value), expression
            checked += 1
    assert checked == 20
    assert names["on_fine"].pixdim.tolist() == pytest.approx([1.0] * 3)
    trained = names["workflow"].network_def.state_dict()
    assert all(value.equal(trained[key]) for key, value in names["net"].state_dict().items())
    assert (tmp_path / "python_segmentations" / "icbm152_left_2mm_fine_seg.nii.gz").is_file()


def test_the_program_of_the_readme_segments_a_scan(tmp_path, monkeypatch, capsys):
    shutil.copy(SAMPLE / "images" / "icbm152_left_4mm.nii.gz", tmp_path / "head.nii.gz")
    monkeypatch.chdir(tmp_path)
    (code,) = programs(REPOSITORY / "README.md")
    names = {}
    exec(code, names)
    assert set(names["result"].volumes) == {"anterior", "posterior"} and min(names["result"].volumes.values()) > 1000
    assert str(names["result"].volumes) in capsys.readouterr().out


def test_the_program_of_any_resolution_makes_a_scan_of_thick_slices(tmp_path, monkeypatch):
    """A labelled sample of 36×42×41 voxels of 1 mm gets 8 slices of 5 mm."""
    for name, folder in (("scan", "imagesTr"), ("label", "labelsTr")):
        shutil.copy(SAMPLE / "Task04_Hippocampus" / folder / "hippocampus_067.nii.gz", tmp_path / f"{name}.nii.gz")
    monkeypatch.chdir(tmp_path)
    (code,) = programs(REPOSITORY / "docs/any_resolution.md")
    exec(code, {})
    for name in ("scan", "label"):
        made = nib.load(tmp_path / "thick_slices" / name / f"{name}_trans.nii.gz")
        assert made.shape == (36, 42, 8) and made.header.get_zooms() == (1, 1, 5)
