"""Several processes of one command (docs/many_machines.md): what one makes, they make together."""

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.bundle import scripts as bundle_runner

from .conftest import CONFIGS, EVALUATE, SAMPLE, SMALL, command, config, read, run

SUBJECT = SAMPLE / "Task04_Hippocampus"
INFERENCE, EVALUATION, TRAINING = (
    str([f"{CONFIGS}/{name}.json" for name in names])
    for names in (
        ("inference", "multi_gpu_inference"),
        ("inference", "evaluate", "multi_gpu_inference"),
        ("train", "multi_gpu_train"),
    )
)
needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")


def launcher(processes):
    return ("torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m")


def process_of(parent, rank):
    """Id of the process of a rank that ``torchrun`` started."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            started_by = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if started_by == parent.pid and b"RANK=%d" % rank in (folder / "environ").read_bytes().split(b"\0"):
                return int(folder.name)
    raise ValueError(f"rank {rank} of {parent.pid} is not running")


def kill_when(process, condition, rank=1):
    """Kills one rank once a condition holds; returns what the command printed before it ended by itself."""
    deadline = time.time() + 300
    while not condition():
        assert process.poll() is None and time.time() < deadline, process.communicate()[0]
        time.sleep(0.02)
    os.kill(process_of(process, rank), signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    return output


def recorded(folder):
    """Cases that are done."""
    return {path.name.removesuffix("_seg.json") for path in folder.glob("[!.]*_seg.json")}


def cases_of(path):
    return [row["case"] for row in read(path)] if path.exists() else []


@needs_proc
@pytest.mark.slow
def test_of_100_scans_each_is_done_once_by_two_processes_though_one_is_killed_and_the_run_resumed(tmp_path):
    scans, output = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    for i in range(100):
        (scans / f"s{i:03d}.nii.gz").symlink_to(SAMPLE / "images" / "icbm152_left_4mm.nii.gz")
    volumes = output / "volumes.csv"
    options = dict(launcher=launcher(2), input=scans, output_dir=output)
    process = command("inferring", INFERENCE, start=True, **options)
    kill_when(process, lambda: len(recorded(output)) >= 20)
    done = recorded(output)
    assert 20 <= len(done) < 100 and not volumes.exists()
    written = {case: (output / f"{case}_seg.nii.gz").stat().st_mtime_ns for case in done}

    result = command("inferring", INFERENCE, **options)
    assert result.returncode == 0, result.stdout
    assert f"{len(done)} of 100 are done, with the same scans, weights and options, and are skipped" in result.stdout
    assert f"100 of 100 done, {len(done)} of them before this run" in result.stdout
    for i in range(100):  # the log of a scan, of whichever process
        assert result.stdout.count(f": s{i:03d}: 4×4×4 mm -> level 2") == (f"s{i:03d}" not in done)
    assert sorted(cases_of(volumes)) == sorted([f"s{i:03d}" for i in range(100)] * 2)
    assert len({(row["class"], row["voxels"], row["mm3_fine"]) for row in read(volumes)}) == 2
    assert len(list(output.glob("*_seg.nii.gz"))) == 100
    for case, before in written.items():
        assert (output / f"{case}_seg.nii.gz").stat().st_mtime_ns == before

    # One scan is left, which cannot be read: one process tries, once, and both end with status 1.
    (scans / "junk.nii.gz").write_text("not a scan")
    result = command("inferring", INFERENCE, **options)
    assert result.returncode == 1
    assert result.stdout.count(f"1 of 101 failed: {scans / 'junk.nii.gz'}") == 1, result.stdout


def infer(log, **overrides):
    """What the command of the documentation does, in a process that has imported everything already."""
    with open(log, "a", buffering=1) as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    torch.set_num_threads(1)
    options = {"config_file": str(CONFIGS / "inference.json"), **overrides}
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    sys.argv = ["/monai/bundle/__main__.py", "run", "inferring", *words]
    bundle_runner.run("inferring", **options)


@pytest.fixture(scope="session")
def processes():
    """Starts processes by a server that has imported the packages once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rare_unet_networks", "monai.bundle", __name__])

    def start(log, **overrides):
        process = context.Process(target=infer, args=(log,), kwargs=overrides)
        process.start()
        return process

    return start


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """Options of an inference of 100 scans of noise by a small network."""
    folder = tmp_path_factory.mktemp("small")
    random = np.random.default_rng(0)
    (folder / "scans").mkdir()
    for i in range(100):
        noise = random.random(random.integers(6, 10, 3)).astype(np.float32)
        nib.save(nib.Nifti1Image(noise, np.diag([8, 8, 8, 1])), folder / "scans" / f"s{i:03d}.nii.gz")
    parser = ConfigParser(config("inference.json"))
    parser.update(SMALL)
    torch.manual_seed(0)
    torch.save(parser.get_parsed_content("network_def").state_dict(), folder / "model.pt")
    return dict(input=str(folder / "scans"), checkpoint=str(folder / "model.pt"), device="cpu", **SMALL)


def table(folder):
    """Rows of ``volumes.csv`` without the seconds."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read(folder / "volumes.csv")]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a fork server and SIGKILL")
def test_four_processes_three_of_which_are_killed_and_started_again_make_what_one_makes(small, processes, tmp_path):
    one, four = tmp_path / "one", tmp_path / "four"
    run("inference.json", output_dir=str(one), **small)
    logs = [tmp_path / f"{i}.log" for i in range(4)]
    workers = [processes(log, output_dir=str(four), **small) for log in logs]
    deadline = time.time() + 300
    for i in range(3):
        while len(recorded(four)) < 15 * (i + 1):
            assert time.time() < deadline and workers[i].is_alive(), logs[i].read_text()
            time.sleep(0.01)
        workers[i].kill()
        workers[i].join()
        workers[i] = processes(logs[i], output_dir=str(four), **small)
    for worker, log in zip(workers, logs):
        worker.join(300)
        assert worker.exitcode == 0, log.read_text()

    assert len(table(one)) == 200 and table(four) == table(one)
    assert recorded(four) == recorded(one) == {f"s{i:03d}" for i in range(100)}
    for path in one.glob("*_seg.nii.gz"):
        np.testing.assert_array_equal(nib.load(four / path.name).dataobj, nib.load(path).dataobj)
    assert not list(four.glob(".*claim*"))
    # Nothing is done twice. A process that is killed may have written a record, but not its line.
    done = [line for log in logs for line in log.read_text().splitlines() if " mm -> level 3" in line]
    assert 97 <= len(done) <= 100, len(done)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a fork server")
def test_parts_are_every_nth_scan_and_the_last_makes_the_table_of_all(small, processes, tmp_path):
    output, log = tmp_path / "out", tmp_path / "log"
    for part, done in (("2/50", {"s001", "s051"}), ("3/50", {"s001", "s051", "s002", "s052"})):
        worker = processes(log, output_dir=str(output), part=part, **small)
        worker.join(300)
        assert worker.exitcode == 0, log.read_text()
        assert recorded(output) == done
        assert [row["case"] for row in table(output)] == [case for case in sorted(done) for _ in range(2)]


@pytest.mark.slow
def test_collecting_makes_the_table_and_nothing_else(tmp_path):
    scan = SAMPLE / "images" / "icbm152_left_4mm.nii.gz"
    run("inference.json", input=str(scan), output_dir=str(tmp_path), report="false")
    rows = read(tmp_path / "volumes.csv")
    (tmp_path / "volumes.csv").unlink()
    names = {path.name for path in tmp_path.iterdir()}
    result = command("collecting", CONFIGS / "inference.json", output_dir=tmp_path, report="false")
    assert result.returncode == 0, result.stdout
    assert "volumes.csv has the volumes of 1 case(s)" in result.stdout and "scan(s) in" not in result.stdout
    assert read(tmp_path / "volumes.csv") == rows and len(rows) == 2
    assert {path.name for path in tmp_path.iterdir()} == {*names, "volumes.csv"}


@pytest.mark.slow
def test_the_same_command_again_has_nothing_left_and_does_all_again_with_overwrite(tmp_path):
    scan = tmp_path / "scan.nii.gz"
    shutil.copy(SAMPLE / "images" / "icbm152_left_4mm.nii.gz", scan)
    options = dict(input=scan, output_dir=tmp_path / "out")
    outputs = []
    for overwrite in ((), (), ("--overwrite", "true")):
        result = command("inferring", CONFIGS / "inference.json", *overwrite, **options)
        assert result.returncode == 0, result.stdout
        outputs.append(result.stdout)
        assert cases_of(tmp_path / "out" / "volumes.csv") == ["scan", "scan"]
    first, second, third = outputs
    assert "1 of 1 done" in first and "skipped" not in first
    assert "1 of 1 are done, with the same scans, weights and options, and are skipped" in second
    assert "1 of 1 done, 1 of them before this run" in second and "`dataloader` is empty" not in second
    table = [output[output.index("case ") :].splitlines()[:2] for output in outputs]
    assert table[0] == table[1] and table[0][1].startswith("scan ")  # also the seconds, those of the record
    assert "1 of 1 done" in third and "skipped" not in third


def test_a_case_that_fails_has_no_rows_of_an_earlier_run(tmp_path):
    scan = tmp_path / "scan.nii.gz"
    shutil.copy(SAMPLE / "images" / "icbm152_left_4mm.nii.gz", scan)
    paths = dict(input=str(scan), output_dir=str(tmp_path / "out"))
    run("inference.json", **paths)
    assert cases_of(tmp_path / "out" / "volumes.csv") == ["scan", "scan"]
    scan.write_text("no scan any more")
    run("inference.json", **paths)
    assert cases_of(tmp_path / "out" / "volumes.csv") == []


def test_three_processes_score_what_one_does(tmp_path):
    """Two cases at four levels: the parts are 3, 3 and 2."""
    run(*EVALUATE, dataset_dir=str(SUBJECT), output_dir=str(tmp_path / "one"))
    options = dict(dataset_dir=SUBJECT, output_dir=tmp_path / "three")
    result = command("evaluating", EVALUATION, launcher=launcher(3), **options)
    assert result.returncode == 0, result.stdout
    assert "8 of 8 done" in result.stdout
    for name in ("metrics/per_case.csv", "summary.csv"):
        assert (tmp_path / "three" / name).read_text() == (tmp_path / "one" / name).read_text()


def equal_sizes(root):
    """Two cases to train of one size, so that neither is padded in a batch of both, and two to validate."""
    random = np.random.default_rng(1)
    for case in "abcd":
        size = (24, 28, 24) if case in "ab" else random.integers(20, 30, 3)
        label = np.zeros(size, np.uint8)
        label[6 : 12 + (case == "b"), 5:10, 6:14] = 1
        label[6:14, 10 : 15 + (case == "b"), 6:14] = 2
        for folder, data in (("imagesTr", 100 * (label > 0) + 20 * random.random(size)), ("labelsTr", label)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            kind = np.uint8 if folder == "labelsTr" else np.float32
            nib.save(nib.Nifti1Image(data.astype(kind), np.eye(4)), root / folder / f"{case}.nii.gz")
    (root / "splits.json").write_text(json.dumps({"train": ["a", "b"], "validation": ["c", "d"]}))


# Trains as ``run training`` does, and keeps the loss of every step, of several processes their mean.
RECORD = """
import json, sys, torch
import torch.distributed as dist
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
files, overrides, target = json.loads(sys.argv[1])
workflow = ConfigWorkflow(files, workflow_type="train", logging_file=False, **overrides)
workflow.initialize()
content, losses = workflow.parser.get_parsed_content, []
def keep(engine):
    loss = engine.state.output[0]["loss"].clone()
    if dist.is_initialized():
        dist.all_reduce(loss)
        loss /= dist.get_world_size()
    losses.append(float(loss))
content("train#trainer").add_event_handler(Events.ITERATION_COMPLETED, keep)
workflow.run()
if not dist.is_initialized() or dist.get_rank() == 0:
    metrics = dict(content("validate#evaluator").state.metrics)
    states = {key: content(key).state_dict() for key in ("network_def", "averaged")}
    torch.save({"losses": losses, "metrics": metrics, **states}, target)
workflow.finalize()
"""


@pytest.mark.slow
def test_two_processes_learn_what_one_does_from_batches_twice_as_large(tmp_path):
    """AdamW as it stands, but with an epsilon above the rounding errors of gradients that are 0, and without chance."""
    equal_sizes(tmp_path)
    (tmp_path / "record.py").write_text(RECORD)
    chance_free = config("train.json")["train"]["random_transforms"][-2:]  # the pyramid, and its scaling
    assert [t["_target_"].split(".")[-1] for t in chance_free] == [
        "MultiResolutionPyramidd",
        "ScaleIntensityRangePercentilesd",
    ]
    results = []
    for processes, batch_size in ((1, 2), (2, 1)):
        output = tmp_path / str(processes)
        overrides = dict(
            bundle_root=str(CONFIGS.parent), dataset_dir=str(tmp_path), splits_file=str(tmp_path / "splits.json"),
            output_dir=str(output), batch_size=batch_size, max_epochs=8, val_interval=4, learning_rate=0.01, **SMALL,
        ) | {"train#random_transforms": chance_free, "optimizer#eps": 1e-4}  # fmt: skip
        files = [str(CONFIGS / f"{name}.json") for name in ["train", "multi_gpu_train"][:processes]]
        words = [sys.executable, tmp_path / "record.py", json.dumps([files, overrides, str(output) + ".pt"])]
        if processes > 1:
            words[1:1] = ["-m", *launcher(processes)[:-1]]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        result = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
        assert result.returncode == 0, result.stdout
        results.append(torch.load(f"{output}.pt", weights_only=True))
    one, two = results
    assert len(one["losses"]) == len(two["losses"]) == 8 and one["losses"][-1] < one["losses"][0]
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)
    assert two["metrics"] == pytest.approx(one["metrics"], abs=1e-3, nan_ok=True)
    for key in ("network_def", "averaged"):
        for name, weights in one[key].items():
            # A weight can move by the learning rate, 0.01, in each of eight steps.
            torch.testing.assert_close(two[key][name], weights, atol=1e-3, rtol=0, msg=f"{key} {name}")


@needs_proc
def test_a_training_one_of_whose_processes_is_killed_ends_with_an_error(tiny, tmp_path):
    options = dict(dataset_dir=tiny, splits_file=tiny / "splits.json", output_dir=tmp_path, batch_size=1, **SMALL)
    process = command("training", TRAINING, start=True, launcher=launcher(2), max_epochs=1000, **options)
    output = kill_when(process, (tmp_path / "checkpoints" / "checkpoint_epoch=1.pt").exists)
    assert "Signal 9 (SIGKILL) received" in output
    result = command("training", CONFIGS / "train.json", max_epochs=1, **options)  # the other one has ended, too
    assert result.returncode == 0 and "nothing is left to do" in result.stdout


def test_two_nodes_train_one_network(tiny, tmp_path):
    """As under SLURM, where each node runs a ``torchrun`` of its own; here both are this machine."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    meet = (f"--rdzv_endpoint=localhost:{port}", "--rdzv_backend=c10d", "--rdzv_id=1", "--local_addr=localhost")
    node = ("torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", *meet, "-m")
    options = dict(dataset_dir=tiny, splits_file=tiny / "splits.json", output_dir=tmp_path, batch_size=1, **SMALL)
    nodes = [command("training", TRAINING, start=True, launcher=node, max_epochs=1, **options) for _ in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in nodes]
    assert [process.returncode for process in nodes] == [0, 0], outputs
    checkpoint = torch.load(tmp_path / "checkpoints" / "checkpoint_epoch=1.pt", weights_only=True)
    assert checkpoint["trainer"]["iteration"] == 1 and (tmp_path / "model.pt").exists()


@pytest.mark.slow
def test_what_monai_label_starts_on_several_gpus_trains_and_hands_over_whole_weights(tiny, tmp_path):
    """Its trainings, where it finds more than one GPU: ``torchrun``, ``--tracking None`` and scans without a name."""
    root, temporary = tmp_path / "bundle", tmp_path / "tmp"
    (root / "models").mkdir(parents=True)
    temporary.mkdir()
    files = ["train", "finetune", "monai_label", "multi_gpu_train"]
    parser = ConfigParser(ConfigParser.load_config_files([str(CONFIGS / f"{name}.json") for name in files]))
    parser.update(SMALL)
    torch.save(parser.get_parsed_content("network_def").state_dict(), root / "models" / "model.pt")
    before = (root / "models" / "model.pt").read_bytes()
    folders = {"image": "imagesTr", "label": "labelsTr"}
    items = [{key: str(tiny / folder / f"{case}.nii.gz") for key, folder in folders.items()} for case in "ab"]
    overrides = {
        "train#dataset#data": items,
        "validate#dataset#data": items,
        "train#trainer#max_epochs": 1,
        "batch_size": 1,
        "tracking": "None",
        "bundle_root": root,
        **SMALL,
    }
    config_file = str([str(CONFIGS / f"{name}.json") for name in files])
    variables = {"TMPDIR": str(temporary)}
    result = command("run", config_file, launcher=launcher(2), variables=variables, **overrides)
    assert result.returncode == 0, result.stdout
    assert [p.name for p in (root / "models").iterdir()] == ["model.pt"]
    assert (root / "models" / "model.pt").read_bytes() != before
    parser.get_parsed_content("network_def").load_state_dict(
        torch.load(root / "models" / "model.pt", weights_only=True)
    )
    assert [p for p in temporary.iterdir() if p.name.startswith("monai_label")] == []
