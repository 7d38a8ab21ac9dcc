"""Training, evaluating and inferring, run for real."""

import itertools
import os
import shutil
import signal
import time

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.transforms import Compose, LoadImage, LoadImaged, ResampleToMatch, SaveImage

from rare_unet_networks.levels import ResolutionLevels, Route
from rare_unet_networks.transforms.grids import prediction_key
from rare_unet_networks.transforms.low_resolution import SimulateLowResolutiond

from .conftest import CONFIGS, EVALUATE, EVALUATING, SAMPLE, SMALL, command, read, run

SUBJECT = SAMPLE / "Task04_Hippocampus"
CASE = SUBJECT / "imagesTr" / "hippocampus_067.nii.gz"


def small_options(tiny, tmp_path):
    return dict(dataset_dir=tiny, splits_file=tiny / "splits.json", output_dir=tmp_path, **SMALL)


def test_training_validates_every_scale_and_class_and_keeps_the_best_weights(trained):
    workflow, output = trained
    metrics = workflow.parser.get_parsed_content("validate#evaluator").state.metrics
    classes = ("anterior", "posterior", "mean")
    expected = {f"val_mean_dice_scale_{s}_{c}" for s in (1, 0.5, 0.25, 0.125) for c in classes}
    assert expected <= set(metrics) and 0 <= metrics["val_mean_dice"] <= 1
    assert workflow.parser.get_parsed_content("train#trainer").state.iteration == 2
    state = torch.load(output / "model.pt", weights_only=True)
    assert state.keys() == workflow.parser.get_parsed_content("network_def").state_dict().keys()
    assert {p.name for p in (output / "checkpoints").iterdir()} == {"checkpoint_epoch=1.pt", "checkpoint_epoch=2.pt"}
    assert list((output / "tensorboard").iterdir())


def test_trained_weights_are_the_average_not_the_last(trained):
    workflow, _ = trained
    network, averaged = (workflow.parser.get_parsed_content(key) for key in ("network_def", "averaged"))
    pairs = list(zip(network.state_dict().values(), averaged.state_dict().values()))
    assert not averaged.training and any(not torch.equal(a, b) for a, b in pairs)


def test_evaluating_and_inferring_use_weights_of_their_own_run(tiny, trained, tmp_path):
    _, output = trained
    weights = dict(checkpoint=str(output / "model.pt"), output_dir=str(tmp_path), **SMALL)
    run(*EVALUATE, dataset_dir=str(tiny), splits_file=str(tiny / "splits.json"), **weights)
    assert len(read(tmp_path / "metrics" / "per_case.csv")) == 2 * 4 * 2 * 2  # cases, scales, grids, classes
    run("inference.json", input=str(tiny / "imagesTr"), **weights)
    assert len(read(tmp_path / "volumes.csv")) == 4 * 2


def test_scans_placed_by_their_size_are_evaluated_and_segmented_on_the_grids_of_that_level(tiny, trained, tmp_path):
    """Scans of 1 mm and 20 to 29 voxels: by spacing they enter level 0 of 32×64×32, by size level 1."""
    options = {"checkpoint": str(trained[1] / "model.pt"), "output_dir": str(tmp_path), "levels#routing": "size"}
    run(*EVALUATE, dataset_dir=str(tiny), splits_file=str(tiny / "splits.json"), **options, **SMALL)
    assert len(read(tmp_path / "metrics" / "per_case.csv")) == 2 * 4 * 2 * 2  # cases, scales, grids, classes
    run("inference.json", input=str(tiny / "imagesTr"), grid="fine", **options, **SMALL)
    assert {row["level"] for row in read(tmp_path / "volumes.csv")} == {"1"}
    for path in (tiny / "imagesTr").iterdir():
        full = nib.load(tmp_path / path.name.replace(".nii", "_fine_seg.nii"))
        assert full.shape == tuple(2 * n for n in nib.load(path).shape)
        assert full.header.get_zooms() == (0.5, 0.5, 0.5)


def test_a_killed_training_goes_on_where_it_was(tiny, tmp_path):
    options = small_options(tiny, tmp_path)
    process = command("training", CONFIGS / "train.json", start=True, max_epochs=1000, **options)
    deadline = time.time() + 120
    while not (tmp_path / "checkpoints" / "checkpoint_epoch=3.pt").exists():
        assert process.poll() is None and time.time() < deadline, process.stdout.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    # A kill in the middle of writing leaves a file that cannot be read.
    newest = max(int(p.stem.split("=")[1]) for p in (tmp_path / "checkpoints").iterdir())
    (tmp_path / "checkpoints" / f"checkpoint_epoch={newest + 1}.pt").write_bytes(b"cut short")
    result = command("training", CONFIGS / "train.json", max_epochs=newest + 2, **options)
    assert result.returncode == 0, result.stdout
    assert f"checkpoint_epoch={newest + 1}.pt cannot be read" in result.stdout
    assert "Restored all variables" in result.stdout
    assert f"Epoch[{newest + 2}] Complete" in result.stdout and "Epoch[1] Complete" not in result.stdout


def test_the_best_weights_survive_a_resume(tiny, tmp_path):
    paths = dict(dataset_dir=str(tiny), splits_file=str(tiny / "splits.json"), output_dir=str(tmp_path), **SMALL)
    first = run("train.json", workflow_type="train", max_epochs=1, **paths)
    best = first.parser.get_parsed_content("best_saver").state_dict()
    checkpoint = tmp_path / "checkpoints" / "checkpoint_epoch=1.pt"
    # Say that the best so far was perfect: the next validation must not overwrite it.
    content = torch.load(checkpoint, weights_only=True)
    assert content["best"] == best
    content["best"]["_saved"] = [(2.0, name) for _, name in best["_saved"]]
    torch.save(content, checkpoint)
    (tmp_path / "model.pt").write_bytes(b"the best")
    run("train.json", workflow_type="train", max_epochs=2, **paths)
    assert (tmp_path / "model.pt").read_bytes() == b"the best"


@pytest.mark.slow
def test_several_processes_train_one_network(tiny, tmp_path):
    files = f"['{CONFIGS}/train.json','{CONFIGS}/multi_gpu_train.json']"
    launcher = ("torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m")
    result = command("training", files, launcher=launcher, max_epochs=2, batch_size=1, **small_options(tiny, tmp_path))
    assert result.returncode == 0, result.stdout
    assert (tmp_path / "model.pt").exists()
    # Each of the two processes saw one of the two training cases an epoch.
    checkpoint = torch.load(tmp_path / "checkpoints" / "checkpoint_epoch=2.pt", weights_only=True)
    assert checkpoint["trainer"]["iteration"] == 2


def test_without_tqdm_and_tensorboard_training_says_so_and_runs(tiny, tmp_path):
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    hide = "import sys\nfor name in ('tqdm', 'tensorboard'):\n    sys.modules[name] = None\n"
    (hidden / "sitecustomize.py").write_text(hide)
    variables = {"PYTHONPATH": os.pathsep.join([str(hidden), os.environ.get("PYTHONPATH", "")])}
    options = small_options(tiny, tmp_path / "out")
    result = command("training", CONFIGS / "train.json", variables=variables, max_epochs=1, device="cpu", **options)
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("tqdm is not installed") == 1
    assert result.stdout.count("tensorboard is not installed") == 1
    assert (tmp_path / "out" / "model.pt").exists() and not (tmp_path / "out" / "tensorboard").exists()


def test_a_label_that_does_not_fit_stops_training_and_is_named(tiny, tmp_path):
    dataset = tmp_path / "data"
    shutil.copytree(tiny, dataset)
    shutil.copy(tiny / "labelsTr" / "c.nii.gz", dataset / "labelsTr" / "a.nii.gz")
    result = command("training", CONFIGS / "train.json", max_epochs=1, **small_options(dataset, tmp_path / "out"))
    assert result.returncode != 0
    assert f"error: {dataset}/labelsTr/a.nii.gz: the label has" in result.stdout
    assert not (tmp_path / "out" / "model.pt").exists()


def test_inferring_writes_predictions_on_the_scans_own_grid_and_goes_on_after_a_bad_file(tmp_path):
    scans, output = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    image = nib.load(CASE)
    data = np.asarray(image.dataobj, dtype=np.float32)
    oblique = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.1, 0.2, 0.3) @ np.diag([1.0, -1, 1]), [5, 6, 7])
    nib.save(nib.Nifti1Image(data, oblique), scans / "oblique.nii.gz")
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_sform(np.diag([1.0, 1, 0, 1]), code=1)  # slices without thickness
    nib.save(nib.Nifti1Image(data, None, header), scans / "flat.nii.gz")
    nib.save(nib.Nifti1Image(np.stack([data] * 4, axis=-1), np.eye(4)), scans / "four.nii")
    nib.save(nib.Nifti1Image(np.full_like(data, 7), np.eye(4)), scans / "constant.nii.gz")
    (scans / "junk.nii.gz").write_text("not a scan")
    for suffix in (".nii", ".nii.gz"):
        nib.save(image, scans / f"twice{suffix}")
    result = command("inferring", CONFIGS / "inference.json", input=scans, output_dir=output, report="false")
    assert result.returncode == 1
    errors = [line for line in result.stdout.splitlines() if " ERROR - " in line]
    assert len(errors) == 7 and errors[-1].split("ERROR - ")[1].startswith("6 of 7 failed")
    for name, reason in {
        "constant.nii.gz": "no contrast",
        "flat.nii.gz": "expected a spacing of 0.05 to 50 mm on every axis, got 1×1×0 mm",
        "four.nii": "expected 1 channel(s), got 4",
        "junk.nii.gz": "not a gzip file",
        "twice.nii": "another scan would write twice_seg.nii.gz",
        "twice.nii.gz": "another scan would write twice_seg.nii.gz",
    }.items():
        assert [line for line in errors if f"{scans / name}: " in line and reason in line], (name, errors)
    assert " of 7: oblique: 1×1×1 mm -> level 0, " in result.stdout
    tables = {"volumes.csv", "labels_itksnap.txt", "labels_slicer.ctbl"}
    assert {p.name for p in output.iterdir()} == {"oblique_seg.nii.gz", "oblique_seg.json", *tables}
    prediction = nib.load(output / "oblique_seg.nii.gz")
    assert prediction.shape == data.shape and prediction.get_data_dtype() == np.uint8
    np.testing.assert_allclose(prediction.affine, oblique, atol=1e-5)
    rows = read(output / "volumes.csv")
    labels = np.asarray(prediction.dataobj)
    assert [(r["case"], r["class"], int(r["voxels"]), float(r["mm3"]), r["level"]) for r in rows] == [
        ("oblique", name, int((labels == i).sum()), pytest.approx((labels == i).sum()), "0")
        for i, name in ((1, "anterior"), (2, "posterior"))
    ]


ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))


def test_any_axis_order_or_flip_gives_the_same_segmentation(tmp_path):
    scans, output = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    image = nib.load(CASE)
    chosen = {f"o{i:02d}": np.array(list(zip(*ORIENTATIONS[i]))) for i in (0, 7, 12, 22, 29, 35, 41, 46)}
    for name, orientation in chosen.items():
        nib.save(image.as_reoriented(orientation), scans / f"{name}.nii.gz")
    run("inference.json", input=str(scans), output_dir=str(output))
    expected = nib.as_closest_canonical(nib.load(output / "o00_seg.nii.gz"))
    assert 1000 < (np.asarray(expected.dataobj) > 0).sum() < 10000
    for name in chosen:
        prediction, scan = nib.load(output / f"{name}_seg.nii.gz"), nib.load(scans / f"{name}.nii.gz")
        assert prediction.shape == scan.shape
        np.testing.assert_allclose(prediction.affine, scan.affine, atol=1e-5)
        canonical = nib.as_closest_canonical(prediction)
        np.testing.assert_array_equal(np.asarray(canonical.dataobj), np.asarray(expected.dataobj))


def test_inferring_decides_the_route_once_a_scan_and_its_predictions_carry_it_and_the_side(tmp_path, monkeypatch):
    routes, predictions, route = [], {}, ResolutionLevels.route
    monkeypatch.setattr(ResolutionLevels, "route", lambda *args: routes.append(route(*args)) or routes[-1])
    names = ("icbm152_left_2mm", "icbm152_right_2mm", "icbm152_right_1x1x4mm")
    (tmp_path / "scans").mkdir()
    for name in names:
        shutil.copy(SAMPLE / "images" / f"{name}.nii.gz", tmp_path / "scans")
    options = dict(input=str(tmp_path / "scans"), output_dir=str(tmp_path / "out"))
    evaluator = run("inference.json", run=False, **options).parser.get_parsed_content("evaluator")

    @evaluator.on(Events.ITERATION_COMPLETED)
    def keep(engine):
        predictions[engine.state.batch[0]["case"]] = engine.state.output[0]

    evaluator.run()
    assert len(routes) == len(predictions) == 3
    for name, expected in zip(sorted(names), routes):
        for key in ("pred", "pred_fine"):
            meta = predictions[name][key].meta
            assert isinstance(meta["route"], Route) and meta["route"] == expected
            assert meta["side"] == name.split("_")[1]
    assert [r.level for r in routes] == [1, 0, 1]


@pytest.mark.parametrize("downsample", ["mean", "trilinear"])
@pytest.mark.parametrize("grid", ["scan", "fine"])
def test_a_coarse_nifti_gets_from_inferring_the_label_map_that_evaluating_scores(tmp_path, downsample, grid):
    predictions = {}
    protocol = dict(dataset_dir=str(SUBJECT), output_dir=str(tmp_path), downsample=downsample)
    workflow = run(*EVALUATE, run=False, **protocol)
    evaluator = workflow.parser.get_parsed_content("evaluator")

    def keep(engine):
        item, output = engine.state.batch[0], engine.state.output[0]
        predictions[item["case"], int(item["level"])] = output[prediction_key(grid)]

    evaluator.add_event_handler(Events.ITERATION_COMPLETED, keep)
    workflow.run()
    assert len(predictions) == 8
    for case, level in predictions:
        coarse = Compose(
            [LoadImaged("image", ensure_channel_first=True), SimulateLowResolutiond("image", image_mode=downsample)]
        )({"image": SUBJECT / "imagesTr" / f"{case}.nii.gz", "level": level})["image"]
        coarse.meta["filename_or_obj"] = f"{case}_{level}.nii.gz"
        SaveImage(tmp_path / "coarse", output_postfix="", separate_folder=False, resample=False)(coarse)
    run("inference.json", input=str(tmp_path / "coarse"), output_dir=str(tmp_path / "out"), grid=grid)
    postfix = {"scan": "seg", "fine": "fine_seg"}[grid]
    for (case, level), expected in predictions.items():
        written = LoadImage(ensure_channel_first=True)(tmp_path / "out" / f"{case}_{level}_{postfix}.nii.gz")
        if grid == "fine":  # it covers the whole coarse scan, padding of the fine one included
            assert written.pixdim.tolist() == pytest.approx([1.0, 1.0, 1.0])
            written = ResampleToMatch(mode="nearest")(written, expected)
        assert expected.max() == 2
        np.testing.assert_array_equal(written.numpy(), expected.numpy())


def test_a_class_in_neither_map_is_left_out_and_bad_cases_do_not_stop_evaluating(tmp_path):
    dataset = tmp_path / "data"
    for folder in ("imagesTr", "labelsTr"):
        (dataset / folder).mkdir(parents=True)
    image, label = nib.load(CASE), nib.load(SUBJECT / "labelsTr" / CASE.name)
    values = np.asarray(label.dataobj)
    labels = {
        "good": label,
        "unreadable": label,
        "shifted": nib.Nifti1Image(values, np.diag([-1.0, -1, 1, 1])),
        "cut": nib.Nifti1Image(values[:, :, :-1], label.affine),
        "strange": nib.Nifti1Image(np.where(values == 2, 7, values).astype(np.uint8), label.affine),
    }
    for name, prediction in labels.items():
        nib.save(image, dataset / "imagesTr" / f"{name}.nii.gz")
        nib.save(prediction, dataset / "labelsTr" / f"{name}.nii.gz")
    (dataset / "imagesTr" / "unreadable.nii.gz").write_text("not a scan")
    output = tmp_path / "out"
    # A third class that is in no map: left out and counted.
    state = torch.load(CONFIGS.parent / "models" / "model.pt", weights_only=True)
    for key in [k for k in state if k.startswith("heads.") or ".conv_block.1." in k]:
        extra = torch.zeros_like(state[key][: len(state[key]) // 3]) - (1e4 if key.endswith("bias") else 0)
        state[key] = torch.cat([state[key], extra])
    torch.save(state, tmp_path / "four.pt")
    options = dict(dataset_dir=dataset, output_dir=output, split="test", checkpoint=tmp_path / "four.pt")
    names = {"network_def#out_channels": 4, "class_names": "['anterior','posterior','absent']"}
    result = command("evaluating", EVALUATING, **options, **names)
    assert result.returncode == 1 and "16 of 20 failed" in result.stdout, result.stdout
    for name, reason in {
        "unreadable": "not a gzip file",
        "shifted": "the label's affine is not its image's",
        "cut": "the label has",
        "strange": "must hold 0 to 3 only",
    }.items():
        assert f"{name}.nii.gz: " in result.stdout and reason in result.stdout
    rows = read(output / "metrics" / "per_case.csv")
    assert list(rows[0]) == ["case", "scale", "grid", "class", "dice", "volume_error", "hd95"]
    assert {r["case"] for r in rows} == {"good"} and len(rows) == 4 * 2 * 3
    assert {r["dice"] for r in rows if r["class"] == "absent"} == {"nan"}
    summary = {(r["scale"], r["grid"], r["class"]): r for r in read(output / "summary.csv") if r["measure"] == "dice"}
    assert {key[0] for key in summary} == {"1", "0.5", "0.25", "0.125", "average"}
    absent = summary["0.5", "native", "absent"]
    assert (absent["mean"], absent["n"], absent["left_out"]) == ("nan", "0", "1")
    parts = [float(summary["0.5", "native", c]["mean"]) for c in ("anterior", "posterior")]
    assert float(summary["0.5", "native", "mean"]["mean"]) == pytest.approx(sum(parts) / 2, abs=1e-4)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (
            dict(inputt="x"),
            "error: --inputt is neither an option of the bundle runner nor an entry of the config. "
            "Did you mean --input?",
        ),
        (
            {"levels#tolerence": 0.2},
            "error: --levels#tolerence is neither an option of the bundle runner nor an entry of the config. "
            "Did you mean --levels#tolerance?",
        ),
        (
            {"routing#window#overlp": 0.5},
            "error: --routing#window#overlp is neither an option of the bundle runner nor an entry of the "
            "config. Did you mean --routing#window#overlap?",
        ),
        (dict(input="/nowhere"), "error: --input must exist, /nowhere does not."),
        (dict(amp="perhaps"), "error: --amp must be true or false, got 'perhaps'."),
        (dict(output_dir="2024.10"), "error: --output_dir 2024.10 would be read as 2024.1: write ./2024.10"),
        (dict(grid="full"), "error: grid must be one of ('scan', 'fine'), got 'full'."),
    ],
)
def test_a_slip_on_the_command_line_ends_with_one_clear_line(tmp_path, overrides, message):
    options = {"output_dir": tmp_path / "out", **overrides}
    result = command("inferring", CONFIGS / "inference.json", cwd=tmp_path, **options)
    assert result.returncode != 0 and result.stdout.splitlines()[-1] == message
    assert "Traceback" not in result.stdout
    assert not list(tmp_path.iterdir())


def test_an_override_may_add_an_argument_to_a_component(tmp_path):
    """A window of 16×32×16 voxels at level 0 has half as many per axis at level 1."""
    scan = SAMPLE / "images" / "icbm152_left_2mm.nii.gz"
    options = {
        "levels#routing": "size",
        "routing#cval": 0.0,
        "routing#window#overlap": 0.5,
        "routing#window#roi_size": "[16,32,16]",
    }
    options["logging_file"] = CONFIGS / "logging_debug.conf"
    result = command("inferring", CONFIGS / "inference.json", input=scan, output_dir=tmp_path, **options)
    assert result.returncode == 0, result.stdout
    assert "sliding window of 8×16×8 voxels" in result.stdout and ": size " in result.stdout
    assert (tmp_path / "icbm152_left_2mm_seg.nii.gz").exists()


def test_a_path_that_looks_like_a_number_is_taken_as_written_behind_a_dot(tmp_path):
    (tmp_path / "2024.10").symlink_to(SAMPLE / "images")
    options = dict(cwd=tmp_path, input="./2024.10", output_dir="./1e3", amp="False")
    result = command("run", CONFIGS / "inference.json", **options)
    assert result.returncode == 0, result.stdout
    assert (tmp_path / "1e3" / "volumes.csv").exists()
    assert "icbm152_left_1x1x4mm   1x1x4       0" in result.stdout


def test_full_output_lies_on_the_1_mm_grid_in_the_scans_space_and_both_volumes_are_reported(tmp_path):
    scans = SAMPLE / "images"
    run("inference.json", input=str(scans), output_dir=str(tmp_path), grid="fine")
    for path in scans.glob("*.nii.gz"):
        name = path.name.removesuffix(".nii.gz")
        scan, prediction = nib.load(path), nib.load(tmp_path / f"{name}_fine_seg.nii.gz")
        assert prediction.header.get_zooms() == pytest.approx((1, 1, 1), rel=1e-4)
        corners = []
        for image in (scan, prediction):
            outer = np.array([[-0.5] * 3, np.array(image.shape) - 0.5])
            corners.append(nib.affines.apply_affine(image.affine, outer))
        np.testing.assert_allclose(corners[1], corners[0], atol=1e-3)
        assert prediction.get_data_dtype() == np.uint8 and set(np.unique(prediction.dataobj)) == {0, 1, 2}
        labels = np.asarray(prediction.dataobj)
        rows = [r for r in read(tmp_path / "volumes.csv") if r["case"] == name]
        assert [float(r["mm3_fine"]) for r in rows] == pytest.approx([(labels == i).sum() for i in (1, 2)], rel=1e-3)
        assert all(float(r["mm3"]) > 0 for r in rows)


def test_dataset_dir_names_the_scans_to_segment_as_well_as_input(tmp_path):
    run("inference.json", dataset_dir=str(SUBJECT / "imagesTr"), output_dir=str(tmp_path))
    assert {r["case"] for r in read(tmp_path / "volumes.csv")} == {"hippocampus_067", "hippocampus_068"}


def test_scans_given_by_another_program_need_no_names(tmp_path):
    """As ``dataset#data``, which MONAI's specification names; the case is then called by its file."""
    items = [{"image": str(SAMPLE / "images" / "icbm152_left_4mm.nii.gz")}]
    run("inference.json", output_dir=str(tmp_path), **{"dataset#data": items})
    assert {r["case"] for r in read(tmp_path / "volumes.csv")} == {"icbm152_left_4mm"}
    assert (tmp_path / "icbm152_left_4mm_seg.nii.gz").exists()


def test_axes_of_one_voxel_and_sheared_grids_are_kept(tmp_path):
    scans, output = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    image = nib.load(CASE)
    data = np.asarray(image.dataobj, dtype=np.float32)
    sheared = np.eye(4)
    sheared[0, 1] = 0.2
    files = {"four": data[..., None], "slice": data[:, :, 16:17], "sheared": data}
    for name, array in files.items():
        nib.save(nib.Nifti1Image(array, sheared if name == "sheared" else np.eye(4)), scans / f"{name}.nii.gz")
    run("inference.json", input=str(scans), output_dir=str(output))
    for name, array in files.items():
        prediction = nib.load(output / f"{name}_seg.nii.gz")
        assert prediction.shape == array.shape
        assert prediction.get_data_dtype() == np.uint8
        np.testing.assert_allclose(prediction.affine, nib.load(scans / f"{name}.nii.gz").affine, atol=1e-5)
    rows = [r for r in read(output / "volumes.csv") if r["case"] == "sheared"]
    assert [float(r["mm3"]) for r in rows] == pytest.approx([int(r["voxels"]) for r in rows])  # its determinant is 1


def test_a_prediction_that_has_as_many_voxels_as_the_scan_by_chance_keeps_its_own_shape(tmp_path):
    data = np.asarray(nib.load(CASE).dataobj, dtype=np.float32)[:34, :40, :34]
    scan = np.repeat(data[:, :, ::2], 2, axis=0)  # 68×40×17 voxels of 0.5×1×2 mm; at 1 mm as many: 34×40×34
    nib.save(nib.Nifti1Image(scan, np.diag([0.5, 1, 2, 1])), tmp_path / "scan.nii.gz")
    for grid, name, shape in (("scan", "scan_seg", (68, 40, 17)), ("fine", "scan_fine_seg", (34, 40, 34))):
        run("inference.json", input=str(tmp_path / "scan.nii.gz"), output_dir=str(tmp_path / "out"), grid=grid)
        prediction = nib.load(tmp_path / "out" / f"{name}.nii.gz")
        assert prediction.shape == shape
        extent = np.array(prediction.shape) * prediction.header.get_zooms()
        np.testing.assert_allclose(extent, (34, 40, 34))


@pytest.mark.parametrize("sform, qform", [(4, 4), (2, 1), (4, 0), (0, 1)])
def test_what_the_affine_means_and_the_units_are_the_scans(tmp_path, sform, qform):
    image = nib.Nifti1Image(np.asarray(nib.load(CASE).dataobj, dtype=np.float32), np.diag([1.0, 1, 1, 1]))
    image.set_sform(image.affine, code=sform)
    image.set_qform(image.affine, code=qform)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, tmp_path / "scan.nii.gz")
    run("inference.json", input=str(tmp_path / "scan.nii.gz"), output_dir=str(tmp_path / "out"))
    header = nib.load(tmp_path / "out" / "scan_seg.nii.gz").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (sform, qform)
    assert header.get_xyzt_units() == ("mm", "sec")


def test_volumes_of_earlier_runs_stay_and_a_case_done_again_is_replaced(tmp_path):
    for name in ("icbm152_left_4mm", "icbm152_right_4mm", "icbm152_left_4mm"):
        run("inference.json", input=str(SAMPLE / "images" / f"{name}.nii.gz"), output_dir=str(tmp_path))
    cases = [(r["case"], r["class"]) for r in read(tmp_path / "volumes.csv")]
    assert cases == [(f"icbm152_{s}_4mm", c) for s in ("left", "right") for c in ("anterior", "posterior")]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_evaluating_and_inferring_run_on_a_gpu(tmp_path):
    run(*EVALUATE, dataset_dir=str(SUBJECT), output_dir=str(tmp_path), device="cuda:0")
    assert len(read(tmp_path / "metrics" / "per_case.csv")) == 48
    run("inference.json", output_dir=str(tmp_path), device="cuda:0")
    assert len(read(tmp_path / "volumes.csv")) == 16
