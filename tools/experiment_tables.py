"""The tables of docs/experiment.md and of the READMEs, from the results in docs/experiment."""

from __future__ import annotations

import json
import math
from typing import Any

from experiment_results import (
    BUNDLE,
    HEADS,
    PAPER_SPLIT,
    RESULTS,
    SCALES,
    benchmark,
    listed,
    models,
    rows,
    subject,
    summary,
)

from rare_unet_networks import paired_differences, read_rows, summarise

CLASSES = ("anterior", "posterior")
OURS = ("rare_unet_60", "rare_unet")  # with the effort of the rivals; shipped
# Below scale 1 only a coarse map of these was published: detail was lost before it could be scored at 1 mm.
COARSE_ONLY = ("UNet-Up", "UNet+Aug-Up", "nnUNet-spacing")


def cell(entry: dict[str, Any] | None, digits: int = 3) -> str:
    if entry is None or math.isnan(entry["mean"]):
        return "–"
    left_out = f" (n {entry['n']})" if entry["left_out"] else ""
    sd = "" if math.isnan(entry["sd"]) else f" ± {entry['sd']:.{digits}f}"
    return f"{entry['mean']:.{digits}f}{sd}{left_out}"


def interval(difference: dict[str, Any]) -> str:
    """One of :py:func:`rare_unet_networks.paired_differences`."""
    return f"{difference['difference']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}]"


def table(head: list[str], lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines])


def by_scale(measure: str, grid: str, names: list[str] | None = None, digits: int = 3, best: bool = True) -> str:
    """A line per model, a column per scale and the average; the best network of each column is bold."""
    columns = [*SCALES, "average"]
    unknown = set(names or ()) - set(listed())
    if unknown:
        raise KeyError(f"{unknown} must be in models.json")
    measured = [n for n in models() if any(key[:2] == (measure, grid) for key in summary(n))]
    names = [n for n in names or models() if n in measured]
    entries = {n: [summary(n).get((measure, grid, "mean", s)) for s in columns] for n in names}
    lines = []
    for n in names:
        cells = []
        for i, entry in enumerate(entries[n]):
            rivals = [entries[m][i]["mean"] for m in names if entries[m][i] and not models()[m].get("apart")]
            bold = best and entry and rivals and entry["mean"] == max(rivals) and not models()[n].get("apart")
            cells.append(f"**{cell(entry, digits)}**" if bold else cell(entry, digits))
        lines.append([models()[n]["title"], *cells])
    return table(["", *HEADS.values(), "average"], lines)


def by_class(grid: str) -> str:
    """The paper's Table 4: a line per model, a column per scale, the classes' means side by side."""
    columns = [*SCALES, "average"]
    lines = []
    for name, entry in models().items():
        found = [[summary(name).get(("dice", grid, c, scale)) for c in CLASSES] for scale in columns]
        if not any(map(any, found)):
            continue
        cells = [" / ".join(cell(e and {**e, "sd": math.nan}) for e in of_scale) for of_scale in found]
        lines.append([entry["title"], *cells])
    return table([" / ".join(CLASSES), *HEADS.values(), "average"], lines)


def differences(grid: str) -> str:
    """Ours minus each rival, with the bootstrap interval."""
    lines = []
    for ours in (name for name in OURS if name in models()):
        for name, entry in models().items():
            if name in OURS or entry.get("apart") or entry.get("weights_of") in OURS:
                continue
            found = {d["scale"]: d for d in paired_differences(rows(ours), rows(name), subject) if d["grid"] == grid}
            cells = [interval(found[s]) if s in found else "–" for s in SCALES]
            lines.append([f"{models()[ours]['title']} − {entry['title']}", *cells])
    return table(["", *HEADS.values()], lines)


def commands(entry: dict[str, Any]) -> list[str]:
    return [f"`{entry[kind]}`" if entry.get(kind) else "–" for kind in ("train", "evaluate")]


def trained() -> str:
    lines = [[e["title"], e["given"], *commands(e)] for e in models().values()]
    return table(["", "what it was given", "training", "evaluating"], lines)


def tried(grid: str) -> str:
    """A line per ablation."""
    lines = []
    for name, entry in models("ablations").items():
        found = summary(f"ablations/{name}")
        cells = [cell(found.get(("dice", grid, "mean", scale))) for scale in SCALES]
        lines.append([f"*{name}*: {entry['title']}", *cells])
    return table(["", *HEADS.values()], lines)


def tried_commands() -> str:
    return table(["", "training", "evaluating"], [[f"*{n}*", *commands(e)] for n, e in models("ablations").items()])


def published(only_unseen: bool) -> str:
    """The authors' models and ours on their test volumes, in their protocol, case by case."""
    folder = RESULTS / "paper_split"
    first = next(iter(PAPER_SPLIT))
    if not (folder / first / "per_case.csv").exists():
        return "(not measured yet)"
    validation = set(json.loads((BUNDLE / "configs/splits.json").read_text())["validation"])
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
            cells = [cell(means.get(s)) for s in SCALES]
            if name not in PAPER_SPLIT.values():
                gaps = {d["scale"]: d for d in paired_differences(ours, found, subject) if d["grid"] == grid}
                cells = [f"{c} ({interval(gaps[s])})" if s in gaps else c for c, s in zip(cells, SCALES)]
            lines.append([f"{name}, {'coarse grid' if grid == 'native' else '1 mm grid'}", *cells])
    return table([f"{len(cases)} volumes", *HEADS.values()], lines)


def times(*parts: str) -> str:
    """A line per model, output, part and number of threads, where it was measured at all scales."""
    lines = []
    for model, output, part in dict.fromkeys((k[0], k[2], k[4]) for k in benchmark() if k[4] in parts):
        for threads in ("1", "2"):
            found = [benchmark().get((model, s, output, threads, part)) for s in SCALES]
            if not all(found):
                continue
            seconds = [float(r["seconds"]) for r in found]
            up = [benchmark()["unet_up", s, "full", threads, parts[0]] for s in SCALES]
            shares = [t / float(u["seconds"]) for t, u in zip(seconds, up)]
            cells = [f"{1000 * t:.0f} ms (1/{seconds[0] / t:.1f}; {q:.2f})" for t, q in zip(seconds, shares)]
            which = f" ({part})" if part != parts[0] else ""
            lines.append([f"{model}{which}, {output}, {threads} thread(s)", *cells])
    return table(["", *HEADS.values()], lines)


def costs() -> str:
    lines = []
    for model, output in dict.fromkeys((k[0], k[2]) for k in benchmark() if k[4] == "network"):
        found = [benchmark()[model, s, output, "1", "network"] for s in SCALES]
        ratios = [float(found[0]["gflop"]) / float(r["gflop"]) for r in found]
        cells = [f"{float(r['gflop']):.1f} (1/{q:.1f}), {int(r['parameters']):,}" for r, q in zip(found, ratios)]
        lines.append([f"{model}, {output}", *cells])
    return table(["GFLOP and parameters on the path", *HEADS.values()], lines)


def step() -> str:
    lines = []
    for threads in ("1", "2"):
        names = ("level 0 alone", "all levels", "mean of the recipe")
        found = [benchmark().get(("rare_unet", "1", "", threads, f"training step, {name}")) for name in names]
        if all(found):
            alone, every, mean = (float(r["seconds"]) for r in found)
            cells = [f"{alone:.3f} s", *(f"{s:.3f} s ({s / alone:.2f})" for s in (every, mean))]
            lines.append([threads, *cells])
    return table(["threads", "level 0 alone", "all levels", "mean of the recipe's draws"], lines)


README_MODELS = ["rare_unet", "rare_unet_60", "unet_aug_full_up", "mean_shape"]
TABLES = {
    "native": lambda: by_scale("dice", "native"),
    "full": lambda: by_scale("dice", "full"),
    "native_nearest": lambda: by_scale("dice", "native_nearest"),
    "hd95": lambda: by_scale("hd95", "full", digits=2, best=False),
    "volume": lambda: by_scale("volume_error", "full", digits=1, best=False),
    "class_native": lambda: by_class("native"),
    "class_full": lambda: by_class("full"),
    "differences_native": lambda: differences("native"),
    "differences_full": lambda: differences("full"),
    "trained": trained,
    "tried_full": lambda: tried("full"),
    "tried_native": lambda: tried("native"),
    "tried_commands": tried_commands,
    "published_all": lambda: published(only_unseen=False),
    "published_unseen": lambda: published(only_unseen=True),
    "times_network": lambda: times("network", "network and side"),
    "times_pipeline": lambda: times("pipeline"),
    "costs": costs,
    "step": step,
    "readme_native": lambda: by_scale("dice", "native", README_MODELS),
    "readme_full": lambda: by_scale("dice", "full", README_MODELS),
}
