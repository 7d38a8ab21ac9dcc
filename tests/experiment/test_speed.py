"""The times of networks and pipelines, and the tables of docs/speed.md."""

import re

import pytest

from .conftest import REPOSITORY, SCRIPTS, script


@pytest.fixture
def speed(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return script("speed")


@pytest.fixture
def tables():
    return script("speed_tables")


def line(part, what, seconds, runtime="eager", scan="1 mm", voxels="4×4×4", **more):
    return {"part": part, "scan": scan, "voxels": voxels, "level": "0", "what": what, "runtime": runtime,
            "seconds": str(seconds), **more}  # fmt: skip


LINES = [
    line("crops", "network", 0.2), line("crops", "network", 0.05, "auto"), line("crops", "BasicUNet", 0.25),
    line("crops", "DynUNet", 0.1), line("crops", "pipeline", 0.3), line("crops", "pipeline", 0.12, "auto"),
    line("sizes", "network", 1.0, voxels="1×2×5"), line("sizes", "network", 2.0, voxels="2×2×5"),
    line("sizes", "network", 3.0, voxels="3×2×5"),
    line("throughput", "20 scans, num_workers 0", 0.5, "auto", "crop", cpu_seconds="0.75", gigabytes="1.10 1.20"),
    line("also a", "a, the whole program", 8.0), line("also b", "b, prediction", 0.5),
    line("tumours", "network", 6.0, scan="1 mm"), line("tumours", "network", 2.0, scan="2 mm"),
    line("tumours", "network", 1.0, "auto", scan="2 mm"),
]  # fmt: skip


def test_the_rows_have_the_shares_that_follow_from_the_seconds(tables):
    assert tables.TABLES["crops"](LINES).splitlines()[-1] == (
        "| 1 mm | 4×4×4 | 0 | 200 ms | 50 ms (0.25) | 300 ms | 120 ms (0.40) | 1.50 |"
    )
    assert "| RARE-UNet, pipeline, OpenVINO | 120 ms | 0.60 |" in tables.peers(LINES)
    assert tables.peers(LINES).splitlines()[-3:] == [
        "| DynUNet, network, eager | 100 ms | 0.50 |", "| a, the whole program | 8.0 s | 40 |",
        "| b, prediction | 500 ms | 2.5 |",
    ]  # fmt: skip
    assert tables.TABLES["tumours"](LINES).splitlines()[-2:] == [
        "| 1 mm | 4×4×4 | 0 | 6.0 s | – |", "| 2 mm | 4×4×4 | 0 | 2.0 s | 1.0 s (0.50) |",
    ]  # fmt: skip
    row = "| crop | 20 scans, num_workers 0 | 500 ms | 0.75 | 1.10 | 1.20 |"
    assert tables.throughput(LINES).splitlines()[-1] == row


def test_the_readme_tells_nnunet_where_it_was_measured(tables):
    lines = [{**row, "clock": "time, 2 thread(s)"} for row in LINES if row["part"] != "throughput"]
    lines += [line("heads", "network", 1.0), line("crops", "pipeline", 0.1, scan="4 mm")]
    lines += [line("heads", "pipeline", 2.0, r, scan) for r in ("eager", "auto") for scan in ("1 mm", "4 mm")]
    assert tables.readme(lines).endswith("(R² 1.000).")
    lines += [
        line("also nnU-Net", f"nnU-Net, {name}, prediction", t)
        for name, t in (("mirroring", 4.0), ("no mirroring", 0.5))
    ]
    assert tables.readme(lines).endswith(" nnU-Net's predictor takes 4.0 s for the crop, 500 ms without mirroring.")


def test_seconds_that_grow_as_the_voxels_are_a_straight_line(tables):
    slope, r2, points = tables.straight_line(LINES)
    assert (slope, r2) == (pytest.approx(1e5), pytest.approx(1.0)) and points == [(10, 1.0), (20, 2.0), (30, 3.0)]


def test_tables_stand_between_their_marks(tables):
    text = "a\n<!-- table: speed_peers -->\nold\n<!-- /table -->\nb\n"
    assert tables.with_tables(text, LINES) == text.replace("old", tables.peers(LINES))


@pytest.mark.parametrize("name", ["docs/speed.md", "README.md"])
def test_documents_hold_the_tables_that_the_measurement_gives(speed, name):
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    assert "<!-- table: speed_" in text
    assert speed.with_tables(text, speed.lines_of(speed.RESULTS)) == text


def test_the_median_is_that_of_the_second_calls(speed, monkeypatch):
    ticks = iter([10, 11, 20, 25, 30, 32])  # seconds: 1, 5 and 2
    calls = []
    monkeypatch.setattr(speed.Clock, "now", lambda: (calls.append("clock"), next(ticks))[1])
    assert speed.in_turns([lambda: calls.append("call")], 3) == [2]
    assert calls == ["call", "clock", "call", "clock"] * 3


def test_another_program_needs_a_name(speed, tmp_path):
    with pytest.raises(ValueError, match="--also must be NAME=COMMAND, got 'nnUNetv2_predict'"):
        speed.also("nnUNetv2_predict", tmp_path)
    assert (
        speed.also("copy=cp {file} {output}", tmp_path)["what"] == "copy, the whole program"
        and (tmp_path / "also_output").is_file()
    )


def test_eager_is_not_measured_as_openvino(speed):
    speed.check_openvino("openvino (openvino 2026.4.1)")
    for runtime in ("eager (torch 2.13.0)", "openvino (openvino 2026.4.1), eager at level 1"):
        with pytest.raises(RuntimeError, match=f"must use OpenVINO .*, got {re.escape(runtime)}"):
            speed.check_openvino(runtime)
