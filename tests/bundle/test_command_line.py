import json
from pathlib import Path

import pytest

from rare_unet_networks.bundle import bundle_root, check_command_line, command_line
from rare_unet_networks.utils.errors import root_cause

MODULE = "/site-packages/monai/bundle/__main__.py"


@pytest.fixture
def config(tmp_path):
    folder = tmp_path / "bundle" / "configs"
    (folder / "baselines").mkdir(parents=True)
    content = {
        "dataset_dir": "",
        "output_dir": "",
        "amp": "$torch.cuda.is_available()",
        "overwrite": False,
        "trainer": {"max_epochs": 1, "decollate": False, "save_dir": ""},
    }
    for path in (folder / "train.json", folder / "baselines" / "overlay.json"):
        path.write_text(json.dumps(content))
    return folder / "train.json"


def command(config, *options):
    return [MODULE, "run", "training", "--config_file", str(config), *options]


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--output_dir", "new"),
        ("--output_dir=new",),
        ("--output-dir", "new"),
        ("--trainer#max_epochs", "3"),
        ("--trainer::max_epochs", "3"),
        ("--meta_file", "metadata.json", "--logging_file", "logging.conf"),
        ("--tracking", "None"),  # as MONAI Label starts a training by several processes
    ],
)
def test_known_overrides_pass(config, options):
    check_command_line(command(config, *options))


@pytest.mark.parametrize(
    "options, match",
    [
        (("--dataset_dri", "x"), r"--dataset_dri is neither .* Did you mean --dataset_dir\?"),
        (("--datasetdir=x",), "--datasetdir is neither"),
        (("--trainer#epochs", "3"), "--trainer#epochs is neither"),
        (("--ampp",), "--ampp is neither"),
        (("-inputt", "x"), "--inputt is neither"),  # fire takes one dash as well
        (("--dataset_dir", ""), r"--dataset_dir must be a path, got none\.$"),
        (("--output_dir=",), r"--output_dir must be a path, got none\.$"),
        (("--dataset_dir", "/nowhere"), "--dataset_dir must exist, /nowhere does not"),
        (("--output_dir", __file__), "--output_dir must be a folder, .*test_command_line.py is a file"),
    ],
)
def test_misspelt_overrides_and_missing_paths_stop_the_program(config, options, match):
    with pytest.raises(SystemExit, match=match):
        check_command_line(command(config, *options))


COMPONENTS = {
    "inferer": {"_target_": "rare_unet_networks.inferers.ResolutionRoutingInferer", "levels": "@levels"},
    "mirror": {
        "_target_": "rare_unet_networks.inferers.MirrorInferer",
        "inferer": {
            "_target_": "rare_unet_networks.inferers.ResolutionRoutingInferer",
            "levels": "@levels",
            "window": {"_target_": "SlidingWindowInferer", "roi_size": [32, 32, 32]},
        },
    },
    "open": {"_target_": "rare_unet_networks.baselines.DecoderHeadRAREUNet", "spatial_dims": 3},  # has **kwargs
    "train": {"trainer": {"_target_": "SupervisedTrainer", "max_epochs": 1, "amp_kwargs": {}}, "inferer": "@inferer"},
    "transforms": [{"_target_": "LoadImaged", "keys": "image"}],
    "elsewhere": {"_target_": "not_installed.Network"},
    "expression": {"_target_": "$print"},
    "norm": {"name": "instance"},
    "head": "@norm",
}


@pytest.fixture
def components(tmp_path):
    path = tmp_path / "inference.json"
    path.write_text(json.dumps(COMPONENTS))
    return path


@pytest.mark.parametrize(
    "option",
    [
        "--inferer#cval",
        "--inferer::cval",
        "--inferer#_disabled_",
        "--mirror#axis",
        "--mirror#inferer#window#overlap",
        "--open#num_gateways",
        "--train#trainer#amp",
        "--train#trainer#amp_kwargs#enabled",  # a value of a component
        "--transforms#0#image_only",
        "--elsewhere#channels",  # building it says what is wrong
        "--expression#sep",
        "--norm#affine",  # goes somewhere as a whole
    ],
)
def test_overrides_that_add_an_argument_pass(components, option):
    check_command_line(command(components, option, "1"))


@pytest.mark.parametrize(
    "options, match",
    [
        (("--inferer#outptu", "1"), r"--inferer#outptu is neither .* Did you mean --inferer#output\?"),
        (("--inferer::outptu", "1"), r"--inferer::outptu is neither .* Did you mean --inferer#output\?"),
        (("--mirror#axsi", "1"), r"--mirror#axsi is neither .* Did you mean --mirror#axis\?"),
        (
            ("--mirror#inferer#window#overlp", "1"),
            r"--mirror#inferer#window#overlp is neither .* Did you mean --mirror#inferer#window#overlap\?",
        ),
        (("--inferrer#cval", "1"), r"--inferrer#cval is neither"),
        (("--inferer#view#overlap", "1"), "--inferer#view#overlap is neither"),
        (("--train#trainer#max_epoch", "1"), r"max_epoch is neither .* Did you mean --train#trainer#max_epochs\?"),
        (("--train#trainr", "1"), r"--train#trainr is neither .* Did you mean --train#trainer\?"),
        (("--train#inferer#cval", "1"), "--train#inferer#cval is neither"),  # a reference
        (("--transforms#1", "1"), "--transforms#1 is neither"),
        (
            ("--mirror#_target_", "rare_unet_networks.levels.ResolutionLevels", "--mirror#side", "auto"),
            "--mirror#side is neither",
        ),
    ],
)
def test_what_no_component_takes_stops_the_program(components, options, match):
    with pytest.raises(SystemExit, match=match):
        check_command_line(command(components, *options))


def test_a_file_name_of_an_args_file_is_not_evaluated(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "$x").touch()
    (tmp_path / "args.json").write_text(json.dumps({"config_file": str(config), "dataset_dir": "$x"}))
    with pytest.raises(SystemExit, match=r"--dataset_dir \$x is a file, but .*: write \./\$x$"):
        check_command_line([MODULE, "run", "training", "--args_file", "args.json"])


def test_an_args_file_counts_as_options(config, tmp_path):
    args = tmp_path / "args.json"
    args.write_text(json.dumps({"config_file": str(config), "output_dir": "x"}))
    argv = [MODULE, "run", "training", "--args_file", str(args)]
    check_command_line(argv)
    assert bundle_root(argv) == str(config.parents[1])
    with pytest.raises(SystemExit, match="--nonsense is neither"):
        check_command_line([*argv, "--nonsense", "1"])


@pytest.mark.parametrize(
    "options, match",
    [
        (("--output_dir", "2024.10"), "--output_dir 2024.10 would be read as 2024.1: write ./2024.10$"),
        (("--output_dir", "out#2"), "--output_dir out#2: a path must have no '#', rename it or use a link"),
        (("--output_dir=./out#2",), r"--output_dir \./out#2: a path must have no '#'"),
        (("--output_dir=1e3",), "--output_dir 1e3 would be read as 1000.0: write ./1e3$"),
        (("--output_dir", "a,b"), r"--output_dir a,b would be read as \('a', 'b'\): write ./a,b$"),
        (("--dataset_dir", "7"), "--dataset_dir 7 would be read as 7: write ./7$"),  # before it is looked for
        (("--trainer#save_dir", "0x10"), "would be read as 16"),
    ],
)
def test_a_path_that_would_be_read_as_another_type_stops_the_program(config, options, match):
    with pytest.raises(SystemExit, match=match):
        check_command_line(command(config, *options))


@pytest.mark.parametrize("path", ["./2024.10", "2024.10.1", "$'x' + 'y'", "2024-10", "/data/7"])
def test_a_path_that_stays_text_passes(config, path):
    check_command_line(command(config, "--output_dir", path))


def test_other_programs_are_left_alone(config):
    check_command_line(["/usr/bin/pytest", "--dataset_dri", "x"])
    assert bundle_root(["/usr/bin/pytest", "--config_file", str(config)]) == "."


def test_bundle_root_is_found_from_any_folder(config, monkeypatch):
    bundle = config.parents[1]
    assert bundle_root(command(config)) == str(bundle)
    assert bundle_root(command(f"['{config}','other.json']")) == str(bundle)
    assert bundle_root(command(config.parent / "baselines" / "overlay.json")) == str(bundle)
    monkeypatch.chdir(bundle)
    assert bundle_root(command("configs/train.json")) == str(bundle)


SWITCHES = ["--amp", "--overwrite", "--trainer#decollate"]  # an expression, a value, a nested value


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("value", ["True", "False", "1", "0", "$1 > 2", "@overwrite"])
def test_a_switch_that_is_true_or_false_passes(config, switch, value):
    check_command_line(command(config, switch, value))


@pytest.mark.parametrize("value", ["true", "FALSE"])
@pytest.mark.parametrize("switch", SWITCHES[:2])
def test_an_option_of_ours_takes_any_letter_case(config, switch, value):
    check_command_line(command(config, switch, value))


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize(
    "value, match", [("maybe", r"must be true or false, got 'maybe'\.$"), ("2", r"must be true or false, got '2'\.$")]
)
def test_a_switch_that_is_neither_stops_the_program(config, switch, value, match):
    with pytest.raises(SystemExit, match=f"{switch} {match.format(switch)}"):
        check_command_line(command(config, switch, value))


def test_innermost_reason_is_one_line():
    try:
        try:
            raise ValueError("spacing must be\nabove 0")
        except ValueError as inner:
            raise RuntimeError("applying transform <...>") from inner
    except RuntimeError as error:
        assert root_cause(error) == "spacing must be above 0"
    assert root_cause(FileNotFoundError("x.nii")) == "FileNotFoundError: x.nii"


def test_a_tracker_that_is_not_installed_is_named_with_the_extra_that_brings_it(config, monkeypatch):
    monkeypatch.setattr(command_line, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"--tracking mlflow needs the package mlflow: pip install '.\[mlflow\]'"):
        check_command_line(command(config, "--tracking", "mlflow"))


def test_an_error_of_many_lines_is_cut_short():
    reason = root_cause(RuntimeError("size mismatch " * 100))
    assert reason.startswith("RuntimeError: size mismatch") and reason.endswith(" …") and len(reason) == 1002


ALONE, JOINED = '["$check()"]', '["$check()", "$rare_unet_networks.utils.init_distributed(@device)"]'


@pytest.mark.parametrize(
    "initialize, environment, match",
    [
        (ALONE, {"RANK": "0", "WORLD_SIZE": "2"}, "one of 2 processes, .* --config_file must name multi_gpu_inference"),
        (JOINED, {}, "a config_file for several processes must be run with torchrun"),
    ],
)
def test_processes_that_are_not_joined_stop_and_so_does_one_that_would_wait(
    tmp_path, monkeypatch, initialize, environment, match
):
    path = tmp_path / "inference.json"
    path.write_text(f'{{"initialize": {initialize}}}')
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=match):
        check_command_line(command(path))


@pytest.mark.parametrize("initialize, size", [(ALONE, "1"), (JOINED, "1"), (JOINED, "2")])
def test_processes_that_are_joined_and_one_that_torchrun_started_go_on(tmp_path, monkeypatch, initialize, size):
    path = tmp_path / "inference.json"
    path.write_text(f'{{"initialize": {initialize}}}')
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", size)
    check_command_line(command(path))


@pytest.mark.parametrize("value, python", [("false", "False"), ("TRUE", "True")])
def test_an_argument_of_a_component_takes_pythons_spelling_only(config, value, python):
    match = f"--trainer#decollate must be True or False, got '{value}': write --trainer#decollate {python}$"
    with pytest.raises(SystemExit, match=match):
        check_command_line(command(config, "--trainer#decollate", value))


@pytest.mark.parametrize("text", ['("$", "@", "%")', "inspect.signature(run)"])
def test_signs_of_expressions_and_options_of_the_runner_are_written_once(text):
    files = Path(command_line.__file__).parents[1].rglob("*.py")
    assert sum(path.read_text().count(text) for path in files) == 1


def test_options_of_the_runner_are_not_overrides():
    assert {"config_file", "meta_file", "args_file", "tracking"} <= set(command_line.runner_options())
    assert "override" not in command_line.runner_options()
