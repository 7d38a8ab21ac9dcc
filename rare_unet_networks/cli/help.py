"""Texts of ``rare-unet --help`` and ``docs/options.md``.

python -m rare_unet_networks.cli.help > docs/options.md     in the root of the repository, after any change of a config
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .descriptions import COMPONENTS, OPTIONS
from .options import COMMANDS, Command, Option, read_options
from .places import Bundle, find_bundles

__all__ = ["command_help", "options_page", "overview"]

USAGE = """usage: rare-unet TASK [SCANS] [options]              segment a scan, or a folder of scans
       rare-unet COMMAND TASK [DATASET] [options]    """
OWN_OPTIONS = (
    ("--bundle PATH", "folder or zip of a bundle; else that of the package or of the current folder"),
    ("--overlay FILE", "config with changes, such as a task of your own; may be repeated"),
    ("--verbose, -v", "log how each scan is processed, and the MONAI command that runs"),
    ("--version", "version of the package and of the weights of each task"),
    ("--help, -h", "this text; after a task or a command, its own options"),
)
EXAMPLES = """examples:
  rare-unet hippocampus scan.nii.gz -o my_results
  rare-unet brain-tumour patient_folder -o my_results
  rare-unet hippocampus my_scans --grid fine --side right
  rare-unet evaluate hippocampus Task04_Hippocampus --split validation -o runs/mine
  rare-unet train hippocampus Task04_Hippocampus -o runs/mine
  rare-unet hippocampus my_scans --bundle Downloads/hippocampus_mri_segmentation_v0.7.0.zip"""
PAGE = """# Options

The options of each command, with default and example. `rare-unet` and MONAI's bundle runner take the same ones:

```bash
rare-unet hippocampus my_scans --grid fine
python -m monai.bundle run inferring --config_file bundles/hippocampus_mri_segmentation/configs/inference.json \\
    --input my_scans --grid fine
```

- BUNDLE is the folder of the bundle. OUTPUT_DIR is the value of `output_dir`.
- Any other entry of a config is an option, too, and so is an argument of a component: `--levels#routing size`.
- The other entries are in the [last table](#other-entries).

This page is written by `python -m rare_unet_networks.cli.help > docs/options.md`.
"""


def _aligned(rows: Sequence[tuple[str, str]], indent: str = "  ") -> str:
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{indent}{name.ljust(width)}  {text}".rstrip() for name, text in rows)


def _merged(options_by_task: Mapping[str, Sequence[Option]]) -> list[tuple[Option, str]]:
    """Options of several tasks, each once, with its default: by task where it differs."""
    defaults: dict[str, dict[str, str]] = {}
    options: dict[str, Option] = {}
    for task, of_task in options_by_task.items():
        for option in of_task:
            options.setdefault(option.name, option)
            defaults.setdefault(option.name, {})[task] = option.default
    merged = []
    names = [name for name in OPTIONS if name in options] + [name for name in options if name not in OPTIONS]
    for name in names:
        by_task = defaults[name]
        if len(set(by_task.values())) > 1:
            text = "; ".join(f"{task}: {value}" for task, value in by_task.items())
        else:
            only = f" ({', '.join(by_task)} only)" if len(by_task) < len(options_by_task) else ""
            text = options[name].default + only
        merged.append((options[name], text))
    return merged


def _option_lines(options: Sequence[tuple[Option, str]]) -> str:
    lines = []
    for option, default in options:
        names = f"--{option.name}" + (", -o" if option.name == "output_dir" else "")
        example = f"; example: {names.split()[-1]} {option.example}" if option.example else ""
        lines.append(f"  {names}\n      {option.text}\n      default: {default}{example}")
    return "\n".join(lines)


def _options(bundle: Bundle, command: Command) -> list[Option]:
    return read_options([bundle.config(name) for name in command.files])


def overview(bundles: Mapping[str, Bundle]) -> str:
    """Text of ``rare-unet --help``."""
    tasks = [(task, f"weights {bundle.version}, {bundle.root}") for task, bundle in bundles.items()]
    commands = [(name, command.purpose) for name, command in COMMANDS.items()]
    segment = COMMANDS["segment"]
    options = _merged({task: _options(bundle, segment) for task, bundle in bundles.items()})
    parts = [
        f"{USAGE}\n{_aligned([(f'  {name}', text) for name, text in commands], indent='    ')}",
        f"tasks:\n{_aligned(tasks)}" if tasks else "tasks: none found; --bundle names a folder or the zip of a release",
        EXAMPLES,
        f"options of every command:\n{_aligned(OWN_OPTIONS)}",
    ]
    if options:
        parts.append(
            f"options when scans are segmented (rare-unet COMMAND --help has the others):\n{_option_lines(options)}"
        )
    return "\n\n".join(parts)


def command_help(name: str, bundles: Mapping[str, Bundle]) -> str:
    """Text of ``rare-unet COMMAND --help``, for one task or several."""
    command = COMMANDS[name]
    word = "" if name == "segment" else f"{name} "
    task = next(iter(bundles)) if len(bundles) == 1 else "TASK"
    source = f"[{command.source.upper()}]"
    options = _merged({task: _options(bundle, command) for task, bundle in bundles.items()})
    return (
        f"usage: rare-unet {word}{task} {source} [options]\n\n{command.purpose}\n\n"
        f"options:\n{_option_lines(options)}\n\noptions of every command:\n{_aligned(OWN_OPTIONS)}"
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def options_page(bundles: Mapping[str, Bundle]) -> str:
    """Text of ``docs/options.md``."""
    parts = [PAGE]
    for name, command in COMMANDS.items():
        files = ", ".join(f"`{file}`" for file in command.files)
        title = f"## {name}\n\n`{command.run_id}`, {files}: {command.purpose}.\n"
        rows = ["| option | what for | default | example |", "| --- | --- | --- | --- |"]
        for option, default in _merged({task: _options(bundle, command) for task, bundle in bundles.items()}):
            cells = (f"`--{option.name}`", option.text, f"`{default}`", f"`--{option.name} {option.example}`")
            rows.append(f"| {' | '.join(map(_cell, cells))} |")
        parts.append(title + "\n" + "\n".join(rows) + "\n")
    rows = ["| entry | what for |", "| --- | --- |", *(f"| `{k}` | {_cell(text)} |" for k, text in COMPONENTS.items())]
    parts.append("## Other entries\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(options_page(find_bundles(Path("bundles"))), end="")
