"""The tables of docs/speed.md and the lines of README.md from docs/experiment/hippocampus/speed.csv."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from statistics import fmean

Lines = Sequence[Mapping[str, str]]
PEERS = ("BasicUNet", "DynUNet")
NNUNET = "nnU-Net, {}, prediction"  # of nnunet_speed.py, with what it says of mirroring
MIRRORING = ("mirroring", "no mirroring")
MARKS = re.compile(r"(<!-- table: speed_(\w+) -->\n).*?(<!-- /table -->)", re.DOTALL)


def in_words(seconds: float) -> str:
    """Seconds with two or three digits."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def seconds_of(lines: Lines, part: str, scan: str, what: str, runtime: str) -> float | None:
    """Seconds of an entry, None if it was not measured."""
    for line in lines:
        if (line["part"], line["scan"], line["what"], line["runtime"]) == (part, scan, what, runtime):
            return float(line["seconds"])
    return None


def scans(lines: Lines, part: str) -> dict[str, Mapping[str, str]]:
    """The first line of each scan of a part."""
    first: dict[str, Mapping[str, str]] = {}
    for line in lines:
        if line["part"] == part:
            first.setdefault(line["scan"], line)
    return first


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of a document."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])


def times(lines: Lines, part: str, kinds: Sequence[str]) -> str:
    """Seconds of each scan, by eager and by OpenVINO with its share of eager's."""
    rows = []
    for scan, line in scans(lines, part).items():
        cells = [scan, line["voxels"], line["level"]]
        for kind in kinds:
            eager, openvino = (seconds_of(lines, part, scan, kind, runtime) for runtime in ("eager", "auto"))
            cells += [in_words(eager), f"{in_words(openvino)} ({openvino / eager:.2f})" if openvino else "–"]
        if part == "crops":
            network, whole = (seconds_of(lines, part, scan, kind, "eager") for kind in kinds)
            cells.append(f"{whole / network:.2f}")
        rows.append(cells)
    head = ["scan", "voxels", "level"]
    for kind in kinds:
        head += [f"{kind}, eager", f"{kind}, OpenVINO (share of eager)"]
    return table(head + ["pipeline / network, eager"] * (part == "crops"), rows)


def peers(lines: Lines) -> str:
    """MONAI's U-Nets beside level 0, and other programs beside the pipeline, on the same crop."""
    ours = seconds_of(lines, "crops", "1 mm", "network", "eager")
    rows = [["RARE-UNet, level 0, network, eager", in_words(ours), "1.00"]]
    for runtime, name in (("eager", "eager"), ("auto", "OpenVINO")):
        seconds = seconds_of(lines, "crops", "1 mm", "pipeline", runtime)
        rows.append([f"RARE-UNet, pipeline, {name}", in_words(seconds), f"{seconds / ours:.2f}"])
    for name in PEERS:
        seconds = seconds_of(lines, "crops", "1 mm", name, "eager")
        rows.append([f"{name}, network, eager", in_words(seconds), f"{seconds / ours:.2f}"])
    for line in lines:
        if line["part"].startswith("also "):
            seconds = float(line["seconds"])
            rows.append([line["what"], in_words(seconds), f"{seconds / ours:.{0 if seconds > 10 * ours else 1}f}"])
    return table(["at 1 mm", "seconds", "ratio"], rows)


def straight_line(lines: Lines) -> tuple[float, float, list[tuple[int, float]]]:
    """Seconds per million voxels of a straight line, its R², and the points, of the network at level 0."""
    points = []
    for line in lines:
        if line["part"] == "sizes":
            points.append((math.prod(map(int, line["voxels"].split("×"))), float(line["seconds"])))
    x0, y0 = fmean(n for n, _ in points), fmean(s for _, s in points)
    xx, yy = sum((n - x0) ** 2 for n, _ in points), sum((s - y0) ** 2 for _, s in points)
    xy = sum((n - x0) * (s - y0) for n, s in points)
    return xy / xx * 1e6, xy**2 / (xx * yy), points


def sizes(lines: Lines) -> str:
    """Seconds against voxels."""
    slope, r2, points = straight_line(lines)
    rows = [[line["voxels"], f"{n:,}", in_words(s)] for line, (n, s) in zip(_of(lines, "sizes"), points)]
    return f"{table(['grid', 'voxels', 'network, eager'], rows)}\n\nA straight line: {slope:.2f} s per million voxels, \
R² {r2:.3f}."


def throughput(lines: Lines) -> str:
    """Many scans in one command."""
    rows = []
    for line in _of(lines, "throughput"):
        first, last = line["gigabytes"].split()
        cells = [line["scan"], line["what"], in_words(float(line["seconds"])), f"{float(line['cpu_seconds']):.2f}"]
        rows.append([*cells, first, last])
    return table(["1 mm", "command", "a scan", "CPU s a scan", "GB after the first", "GB after the last"], rows)


def readme(lines: Lines) -> str:
    """Three lines about speed."""
    crop, head = (seconds_of(lines, part, "1 mm", "pipeline", "eager") for part in ("crops", "heads"))
    fast, fast_head = (seconds_of(lines, part, "1 mm", "pipeline", "auto") for part in ("crops", "heads"))
    coarse, coarse_head = (seconds_of(lines, part, "4 mm", "pipeline", "eager") for part in ("crops", "heads"))
    network, basic = (seconds_of(lines, "crops", "1 mm", what, "eager") for what in ("network", "BasicUNet"))
    _, r2, _ = straight_line(lines)
    clock = _of(lines, "crops")[0]["clock"].replace("1 thread(s)", "one thread").replace("thread(s)", "threads")
    clock = clock.removeprefix("time, ")  # of a clock, which need not be said
    return (
        f"- Without a GPU a crop of 1 mm takes {in_words(crop)} and a whole head {in_words(head)}; at 4 mm "
        f"{in_words(coarse)} and {in_words(coarse_head)} ({clock}), without trust and report. Python's start is not "
        f"counted.\n"
        f"- Where OpenVINO is installed (`pip install '.[openvino]'`), it is used: {in_words(fast)} and "
        f"{in_words(fast_head)} at 1 mm.\n"
        f"- At 1 mm the network takes {network / basic:.2f} times as long as MONAI's `BasicUNet` of equal width. "
        f"Its time grows as the voxels (R² {r2:.3f}).{_nnunet(lines)}"
    )


def _nnunet(lines: Lines) -> str:
    """What nnU-Net's predictor takes, where it was measured."""
    names = [NNUNET.format(mirroring) for mirroring in MIRRORING]
    found = {line["what"]: in_words(float(line["seconds"])) for line in lines}
    if not found.keys() >= set(names):
        return ""
    return f" nnU-Net's predictor takes {found[names[0]]} for the crop, {found[names[1]]} without mirroring."


def _of(lines: Lines, part: str) -> list[Mapping[str, str]]:
    return [line for line in lines if line["part"] == part]


TABLES = {
    "crops": lambda lines: times(lines, "crops", ("network", "pipeline")),
    "heads": lambda lines: times(lines, "heads", ("pipeline",)),
    "tumours": lambda lines: times(lines, "tumours", ("network",)),
    "peers": peers,
    "sizes": sizes,
    "throughput": throughput,
    "readme": readme,
}


# Parts of the measurement that a table needs, where they are not its name.
NEEDED = {"peers": ("crops",), "readme": ("crops", "heads", "sizes")}


def with_tables(text: str, lines: Lines) -> str:
    """A document with the tables of what was measured in place of those between its marks."""
    parts = {line["part"] for line in lines}

    def new(match: re.Match) -> str:
        if not parts.issuperset(NEEDED.get(match[2], (match[2],))):
            return match[0]
        return f"{match[1]}{TABLES[match[2]](lines)}\n{match[3]}"

    return MARKS.sub(new, text)
