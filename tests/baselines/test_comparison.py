import csv
import math

import pytest

from rare_unet_networks.baselines import paired_differences, read_rows


def rows(values, grid="full", scale="1", name="x"):
    return [{"case": c, "scale": scale, "grid": grid, "class": name, "dice": d} for c, d in values.items()]


def subject(case):
    return case[0]


def compare(ours, theirs, **kwargs):
    return paired_differences(ours, theirs, subject, **kwargs)[0]


def test_mean_is_over_cases_then_classes_and_only_over_cases_both_have():
    ours = rows({"a1": 0.9, "a2": 0.8, "b1": 0.7, "c1": 0.1}) + rows({"a1": 0.5, "b1": math.nan}, name="y")
    theirs = rows({"a1": 0.8, "a2": 0.8, "b1": 0.5}) + rows({"a1": 0.1, "b1": 0.3}, name="y")
    line = compare(ours, theirs)
    # Class x: (0.1 + 0 + 0.2) / 3 = 0.1. Class y: 0.4, one case.
    assert line["difference"] == pytest.approx(0.25)
    assert (line["cases"], line["subjects"], line["scale"], line["grid"]) == (3, 2, "1", "full")


def test_subjects_are_drawn_not_cases():
    # Ten cases of +1 are one subject's, ten of -1 another's: a sample of two subjects is all of one of them half of the
    # time. Twenty independent cases would have a mean between -0.5 and 0.5, nearly always (2.2 standard deviations).
    ours = rows({f"{s}{i}": float(s == "a") for s in "ab" for i in range(10)})
    theirs = rows({f"{s}{i}": float(s == "b") for s in "ab" for i in range(10)})
    line = compare(ours, theirs)
    assert (line["difference"], line["low"], line["high"], line["subjects"]) == (0.0, -1.0, 1.0, 2)
    independent = paired_differences(ours, theirs, lambda case: case)[0]
    assert -0.5 < independent["low"] < -0.3 and 0.3 < independent["high"] < 0.5 and independent["subjects"] == 20


def test_a_constant_difference_has_an_interval_of_no_width():
    ours = rows({f"{s}{i}": 0.8 for s in "abcd" for i in (1, 2)})
    theirs = rows({f"{s}{i}": 0.75 for s in "abcd" for i in (1, 2)})
    line = compare(ours, theirs)
    assert [line["low"], line["high"]] == pytest.approx([0.05, 0.05])


def test_interval_agrees_with_the_normal_one_for_many_subjects():
    differences = [0.01 * (i % 21 - 10) for i in range(210)]
    names = [f"{chr(200 + i)}" for i in range(210)]
    line = compare(rows(dict(zip(names, differences))), rows(dict.fromkeys(names, 0.0)))
    sd = (sum(d * d for d in differences) / 210) ** 0.5
    assert line["high"] == pytest.approx(1.96 * sd / 210**0.5, rel=0.06)
    assert line["low"] == pytest.approx(-line["high"], rel=0.06)


def test_methods_without_a_common_case_are_refused():
    with pytest.raises(ValueError, match="must have cases in common"):
        compare(rows({"a": 1.0}), rows({"b": 1.0}))


def test_rows_are_read_with_numbers_and_gaps(tmp_path):
    path = tmp_path / "per_case.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["case", "scale", "grid", "class", "dice", "hd95"], ["a", "1", "full", "x", "0.5", ""]])
    (row,) = read_rows(path)
    assert row["dice"] == 0.5 and math.isnan(row["hd95"]) and row["scale"] == "1"
    path.write_text("case,scale\na,1\n")
    with pytest.raises(ValueError, match=r"must be a per_case.csv with the column 'grid'"):
        read_rows(path)


def test_regions_do_not_count_in_the_mean():
    """The region's own difference of 0.5 is left out, unless nothing says that it is one."""
    ours = rows({"a1": 0.9}) + rows({"a1": 0.9}, name="WT")
    theirs = rows({"a1": 0.8}) + rows({"a1": 0.4}, name="WT")
    assert compare(ours, theirs, regions=["WT"])["difference"] == pytest.approx(0.1)
    assert compare(ours, theirs)["difference"] == pytest.approx(0.3)
