"""The tables of docs/experiment/README.md and of the READMEs, from the results in docs/experiment."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from experiment_results import PAPER_SPLIT, benchmark, lines_of, listed, models, rows, summary
from experiment_tasks import HEADS, HIPPOCAMPUS, Task

from rare_unet_networks.baselines import paired_differences, read_rows
from rare_unet_networks.metrics.summary import summarise

# Below scale 1 only a coarse map of these was published: detail was lost before it could be scored at 1 mm.
COARSE_ONLY = ("UNet-Up", "UNet+Aug-Up", "nnUNet-spacing")


def cell(entry: dict[str, Any] | None, digits: int = 3) -> str:
    if entry is None or math.isnan(entry["mean"]):
        return "–"
    left_out = f" (n {entry['n']})" if entry["left_out"] else ""
    sd = "" if math.isnan(entry["sd"]) else f" ± {entry['sd']:.{digits}f}"
    return f"{entry['mean']:.{digits}f}{sd}{left_out}"


def interval(difference: dict[str, Any]) -> str:
    """One of :py:func:`rare_unet_networks.baselines.paired_differences`."""
    return f"{difference['difference']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}]"


def table(head: list[str], lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines])


def by_scale(
    task: Task, measure: str, grid: str, names: Sequence[str] | None = None, digits: int = 3, best: bool = True
) -> str:
    """A line per model, a column per scale and the average; the best network of each column is bold."""
    columns = [*task.scales, "average"]
    unknown = set(names or ()) - set(listed(task))
    if unknown:
        raise KeyError(f"{unknown} must be in models.json")
    measured = [n for n in models(task) if any(key[:2] == (measure, grid) for key in summary(task, n))]
    names = [n for n in names or models(task) if n in measured]
    entries = {n: [summary(task, n).get((measure, grid, "mean", s)) for s in columns] for n in names}
    lines = []
    for n in names:
        cells = []
        for i, entry in enumerate(entries[n]):
            rivals = [entries[m][i]["mean"] for m in names if entries[m][i] and not models(task)[m].get("apart")]
            bold = best and entry and rivals and entry["mean"] == max(rivals) and not models(task)[n].get("apart")
            cells.append(f"**{cell(entry, digits)}**" if bold else cell(entry, digits))
        lines.append([models(task)[n]["title"], *cells])
    return table(["", *task.heads.values(), "average"], lines)


def by_class(task: Task, grid: str, classes: Sequence[str]) -> str:
    """The paper's Table 4: a line per model, a column per scale, the classes' means side by side."""
    columns = [*task.scales, "average"]
    lines = []
    for name, entry in models(task).items():
        found = [[summary(task, name).get(("dice", grid, c, scale)) for c in classes] for scale in columns]
        if not any(map(any, found)):
            continue
        cells = [" / ".join(cell(e and {**e, "sd": math.nan}) for e in of_scale) for of_scale in found]
        lines.append([entry["title"], *cells])
    return table([" / ".join(classes), *task.heads.values(), "average"], lines)


def by_case(task: Task, grid: str) -> str:
    """A line per case, a column per scale: the mean over the classes of ours, and of each baseline."""
    names = [n for n, entry in models(task).items() if not entry.get("apart")]
    means: dict[tuple[str, str, str], list[float]] = {}
    for name in names:
        for r in rows(task, name):
            if r["grid"] == grid and r["class"] not in task.regions and not math.isnan(r["dice"]):
                means.setdefault((name, r["case"], r["scale"]), []).append(r["dice"])
    cases = sorted({case for _, case, _ in means})
    lines = []
    for case in cases:
        found = [[means.get((n, case, scale)) for n in names] for scale in task.scales]
        lines.append([case, *(" / ".join(f"{fmean(v):.3f}" if v else "–" for v in values) for values in found)])
    return table([" / ".join(models(task)[n]["title"] for n in names), *task.heads.values()], lines)


def differences(task: Task, grid: str) -> str:
    """Ours minus each baseline, with the bootstrap interval."""
    lines = []
    for ours in (name for name in task.ours if name in models(task)):
        for name, entry in models(task).items():
            if name in task.ours or entry.get("apart") or entry.get("weights_of") in task.ours:
                continue
            pairs = paired_differences(rows(task, ours), rows(task, name), task.subject, regions=task.regions)
            found = {d["scale"]: d for d in pairs if d["grid"] == grid}
            cells = [interval(found[s]) if s in found else "–" for s in task.scales]
            lines.append([f"{models(task)[ours]['title']} − {entry['title']}", *cells])
    return table(["", *task.heads.values()], lines)


def commands(entry: dict[str, Any]) -> list[str]:
    return [f"`{entry[kind]}`" if entry.get(kind) else "–" for kind in ("train", "evaluate")]


def trained(task: Task) -> str:
    lines = [[e["title"], e["given"], *commands(e)] for e in models(task).values()]
    return table(["", "training setup", "training", "evaluating"], lines)


def tried(task: Task, grid: str) -> str:
    """A line per ablation."""
    lines = []
    for name, entry in models(task, "ablations").items():
        found = summary(task, f"ablations/{name}")
        cells = [cell(found.get(("dice", grid, "mean", scale))) for scale in task.scales]
        lines.append([f"*{name}*: {entry['title']}", *cells])
    return table(["", *task.heads.values()], lines)


def tried_commands(task: Task) -> str:
    lines = [[f"*{n}*", *commands(e)] for n, e in models(task, "ablations").items()]
    return table(["", "training", "evaluating"], lines)


def published(only_unseen: bool) -> str:
    """The authors' models and ours on their test volumes, in their protocol, case by case."""
    folder = HIPPOCAMPUS.results / "paper_split"
    first = next(iter(PAPER_SPLIT))
    if not (folder / first / "per_case.csv").exists():
        return "(not measured yet)"
    validation = set(json.loads((HIPPOCAMPUS.bundle / "configs/splits.json").read_text())["validation"])
    grids = {"native_nearest": "native", "full": "full"}  # their labels, our answers read by the same rule

    def read(name: str) -> list[dict[str, Any]]:
        found = [r for r in read_rows(folder / name / "per_case.csv") if not (only_unseen and r["case"] in validation)]
        return [{**r, "grid": grids[r["grid"]]} for r in found if r["grid"] in grids] if name in PAPER_SPLIT else found

    ours = read(first)
    cases = {r["case"] for r in ours}
    lines = []
    measured = sorted(p.parent.name for p in folder.glob("*/per_case.csv"))
    names = [*(n for n in PAPER_SPLIT if n in measured), *(n for n in measured if n not in PAPER_SPLIT)]  # ours first
    found_by = {PAPER_SPLIT.get(name, name): read(name) for name in names}
    for grid in ("native", "full"):
        for name, found in found_by.items():
            lost = grid == "full" and name in COARSE_ONLY
            found = [r for r in found if r["case"] in cases and r["grid"] == grid and not (lost and r["scale"] != "1")]
            means = {s["scale"]: s for s in summarise(found) if s["class"] == "mean" and s["measure"] == "dice"}
            cells = [cell(means.get(s)) for s in HEADS]
            if name not in PAPER_SPLIT.values():
                gaps = {
                    d["scale"]: d for d in paired_differences(ours, found, HIPPOCAMPUS.subject) if d["grid"] == grid
                }
                cells = [f"{c} ({interval(gaps[s])})" if s in gaps else c for c, s in zip(cells, HEADS)]
            lines.append([f"{name}, {'coarse grid' if grid == 'native' else '1 mm grid'}", *cells])
    return table([f"{len(cases)} volumes", *HEADS.values()], lines)


def times(task: Task, *parts: str) -> str:
    """A line per model, output, part and number of threads, where it was measured at all scales."""
    lines = []
    for model, output, part in dict.fromkeys((k[0], k[2], k[4]) for k in benchmark(task) if k[4] in parts):
        for threads in dict.fromkeys(k[3] for k in benchmark(task)):
            found = [benchmark(task).get((model, s, output, threads, part)) for s in task.scales]
            if not all(found):
                continue
            seconds = [float(r["seconds"]) for r in found]
            up = [benchmark(task).get(("unet_up", s, "full", threads, parts[0])) for s in task.scales]
            shares = [f"{t / float(u['seconds']):.2f}" if u else "–" for t, u in zip(seconds, up)]
            cells = [f"{1000 * t:.0f} ms (1/{seconds[0] / t:.1f}; {q})" for t, q in zip(seconds, shares)]
            which = f" ({part})" if part != parts[0] else ""
            device = f"{threads} thread(s)" if threads.isdigit() else threads
            lines.append([f"{model}{which}, {output}, {device}", *cells])
    return table(["", *task.heads.values()], lines)


def efficiency(task: Task) -> str:
    """How much of the speed-up that the arithmetic allows the network alone attains, in percent."""
    lines = []
    for model, output, threads in dict.fromkeys((k[0], k[2], k[3]) for k in benchmark(task) if k[4] == "network"):
        found = [benchmark(task)[model, s, output, threads, "network"] for s in task.scales]
        if model == "unet_up" or not all(r["gflop"] for r in found):
            continue
        shares = [
            float(found[0]["seconds"]) / float(r["seconds"]) / (float(found[0]["gflop"]) / float(r["gflop"]))
            for r in found
        ]
        lines.append([f"{model}, {output}, {threads} thread(s)", *(f"{100 * s:.0f} %" for s in shares)])
    return table(["", *task.heads.values()], lines)


def costs(task: Task) -> str:
    lines = []
    for model, output in dict.fromkeys((k[0], k[2]) for k in benchmark(task) if k[4] == "network"):
        kinds = [
            k[3] for k, r in benchmark(task).items() if (k[0], k[2], k[4]) == (model, output, "network") and r["gflop"]
        ]
        threads = kinds[0]
        found = [benchmark(task)[model, s, output, threads, "network"] for s in task.scales]
        ratios = [float(found[0]["gflop"]) / float(r["gflop"]) for r in found]
        cells = [f"{float(r['gflop']):.1f} (1/{q:.1f}), {int(r['parameters']):,}" for r, q in zip(found, ratios)]
        lines.append([f"{model}, {output}", *cells])
    return table(["GFLOP and parameters on the path", *task.heads.values()], lines)


def commands_taken(task: Task) -> str:
    """Seconds and the most memory that ``run inferring`` took for one scan."""
    lines = []
    for model, threads in dict.fromkeys((k[0], k[3]) for k in benchmark(task) if k[4] == "command"):
        found = {k[1]: r for k, r in benchmark(task).items() if (k[0], k[3], k[4]) == (model, threads, "command")}
        cells = [f"{float(found[s]['seconds']):.1f} s, {float(found[s]['peak_gb']):.1f} GB" for s in task.scales]
        lines.append([f"{model}, {threads} thread(s)", *cells])
    return table(["", *task.heads.values()], lines)


def false_alarms(task: Task) -> str:
    """A line per class, a column per scale: millilitres in heads without tumour, mean and largest."""
    found = lines_of(task.results / "false_alarms.csv")
    if not found:
        return "(not measured yet)"
    heads = len({r["case"] for r in found})
    lines = []
    for name in task.classes:
        volumes = [[float(r["ml"]) for r in found if (r["class"], r["scale"]) == (name, s)] for s in task.scales]
        lines.append([name, *(f"{fmean(v):.1f} ml (at most {max(v):.1f})" for v in volumes)])
    return table([f"{heads} heads", *task.heads.values()], lines)


def step(task: Task) -> str:
    lines = []
    for threads in ("1", "2"):
        names = ("level 0 alone", "all levels", "mean of the recipe")
        found = [benchmark(task).get(("rare_unet", "1", "", threads, f"training step, {name}")) for name in names]
        if all(found):
            alone, every, mean = (float(r["seconds"]) for r in found)
            cells = [f"{alone:.3f} s", *(f"{s:.3f} s ({s / alone:.2f})" for s in (every, mean))]
            lines.append([threads, *cells])
    return table(["threads", "level 0 alone", "all levels", "mean of the training steps"], lines)


def runtimes(task: Task) -> str:
    """A line per runtime, a column per scale: largest difference of a logit, least Dice, time as a share of eager's."""
    found = lines_of(task.results / "runtimes.csv")
    lines = []
    for name in dict.fromkeys(r["runtime"] for r in found):
        scales = {r["scale"]: r for r in found if r["runtime"] == name}
        cells = []
        for r in (scales.get(s) for s in task.scales):
            share = f"{float(r['seconds']) / float(r['seconds_eager']):.2f}" if r and r["seconds"] else "–"
            cells.append(f"{float(r['difference']):.1g}; {r['dice']}; {share}" if r else "–")
        lines.append([f"{name} ({next(iter(scales.values()))['version']})", *cells])
    return table(["difference; Dice; time", *task.heads.values()], lines)


# Each makes one kind of table for a task; <!-- table: TASK/NAME --> in a document names both.
TABLES: dict[str, Callable[[Task], str]] = {
    "native": lambda task: by_scale(task, "dice", "native"),
    "full": lambda task: by_scale(task, "dice", "full"),
    "native_nearest": lambda task: by_scale(task, "dice", "native_nearest"),
    "hd95": lambda task: by_scale(task, "hd95", "full", digits=2, best=False),
    "volume": lambda task: by_scale(task, "volume_error", "full", digits=1, best=False),
    "class_native": lambda task: by_class(task, "native", task.classes),
    "class_full": lambda task: by_class(task, "full", task.classes),
    "region_native": lambda task: by_class(task, "native", task.regions),
    "region_full": lambda task: by_class(task, "full", task.regions),
    "case_native": lambda task: by_case(task, "native"),
    "case_full": lambda task: by_case(task, "full"),
    "differences_native": lambda task: differences(task, "native"),
    "differences_full": lambda task: differences(task, "full"),
    "trained": trained,
    "tried_full": lambda task: tried(task, "full"),
    "tried_native": lambda task: tried(task, "native"),
    "tried_commands": tried_commands,
    "published_all": lambda task: published(only_unseen=False),
    "published_unseen": lambda task: published(only_unseen=True),
    "times_network": lambda task: times(task, "network", "network and side"),
    "times_pipeline": lambda task: times(task, "pipeline"),
    "costs": costs,
    "efficiency": efficiency,
    "step": step,
    "commands": commands_taken,
    "false_alarms": false_alarms,
    "runtimes": runtimes,
    "readme_native": lambda task: by_scale(task, "dice", "native", task.short),
    "readme_full": lambda task: by_scale(task, "dice", "full", task.short),
}
