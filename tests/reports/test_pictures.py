"""Pictures show each class where it lies in the scan."""

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage, Orientation, Spacing

from rare_unet_networks.reports.pictures import draw_picture, sides_of
from rare_unet_networks.utils.colours import COLOURS

from ..bundles.conftest import BRAIN_DATA, needs_brain_data

pytest.importorskip("matplotlib", reason="pictures need matplotlib")
from PIL import Image

SVG = "{http://www.w3.org/2000/svg}"


def volume(values, spacing=(1.0, 2.0, 3.0)):
    return MetaTensor(values[None], affine=torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64)))


def one_voxel(index=(3, 2, 4), shape=(10, 8, 6)):
    """A scan of RAS order with one bright voxel, which is the structure."""
    values = torch.zeros(shape)
    values[index] = 1
    return volume(values)


def panels(svg):
    """(image, contours by colour) of each panel, as elements and corners."""
    result, root = [], ElementTree.fromstring(svg)
    outlines = {f"#{outline.get('id')}": outline for outline in root.iter(f"{SVG}g") if outline.get("id")}
    for panel in root.iter(f"{SVG}svg"):
        if panel.find(f"{SVG}image") is None:
            continue
        contours = {}
        for path in outlines[panel.find(f"{SVG}use").get("href")]:
            points = re.findall(r"([-\d.]+) ([-\d.]+)", path.get("d"))
            contours[path.get("stroke")] = {(float(x), float(y)) for x, y in points}
        result.append((panel.find(f"{SVG}image"), contours))
    return result


def brightest(image):
    """Position of the brightest pixel of an image in mm."""
    x, y, width, height = (float(image.get(key)) for key in ("x", "y", "width", "height"))
    data = base64.b64decode(image.get("href").split(",")[1])
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
    row, column = np.unravel_index(pixels.argmax(), pixels.shape)
    return x + (column + 0.5) * width / pixels.shape[1], y + (row + 0.5) * height / pixels.shape[0]


# In LPI order the voxel (3, 2, 4) of 10×8×6 is (6, 5, 1), at 6, 10 and 3 mm. A contour lies half a voxel around it.
CORNERS = [
    {(9, 3), (11, 3), (10, 1.5), (10, 4.5)},  # sagittal: columns to the back, rows downwards
    {(5.5, 3), (6.5, 3), (6, 1.5), (6, 4.5)},  # coronal: columns to the left, rows downwards
    {(5.5, 10), (6.5, 10), (6, 9), (6, 11)},  # axial: columns to the left, rows to the back
]
CENTRES = [(10, 3), (6, 3), (6, 10)]


@pytest.mark.parametrize("axcodes", ["RAS", "LPI", "SAR"])
def test_contour_and_image_lie_where_the_voxel_is_in_any_order_of_axes(axcodes):
    scan = Orientation(axcodes, labels=None)(one_voxel())
    shown = panels(draw_picture({"image": scan}, scan, ["blob"]))
    assert [contours for _, contours in shown] == [{COLOURS[0]: corners} for corners in CORNERS]
    assert [brightest(image) for image, _ in shown] == [pytest.approx(centre, abs=0.02) for centre in CENTRES]


def test_a_prediction_on_a_finer_grid_than_the_scan_lies_on_the_scan():
    scan = one_voxel()
    fine = Spacing((1.0, 1.0, 1.0), mode="nearest")(scan)
    shown = panels(draw_picture({"image": scan}, fine, ["blob"]))
    for (image, contours), (x, y) in zip(shown, [(9, 2), (6, 2), (6, 9)]):
        corners = contours[COLOURS[0]]
        assert (min(c[0] for c in corners) < x < max(c[0] for c in corners)) and brightest(image) in [
            pytest.approx((x + dx, y + dy), abs=0.51) for dx in (-1, 0, 1) for dy in (-1, 0, 1)
        ]


def test_each_side_and_channel_has_a_row_and_each_class_its_colour():
    values = torch.zeros(60, 10, 10)
    values[2:5, 4:8, 4:8] = 1
    values[52:55, 4:8, 4:8] = 4
    labels, names = volume(values), ["left_head", "left_tail", "right_head", "right_tail"]
    scan = MetaTensor(torch.rand(2, 60, 10, 10), affine=labels.affine)
    svg = draw_picture({"T1w": scan, "T2w": scan[:1]}, labels, names)
    assert [list(contours) for _, contours in panels(svg)] == [[COLOURS[0]]] * 9 + [[COLOURS[3]]] * 9
    assert re.findall(r'<text x="7" y="16">(.*?)</text>', svg)[::3] == [
        f"{side}, {name}" for side in ("left", "right") for name in ("T1w", "T1w", "T2w")
    ]


def test_a_contour_has_points_at_its_corners_only_and_not_too_many():
    square = volume(torch.zeros(20, 20, 20), (1.0, 1.0, 1.0))
    square[0, 4:10, 4:10, 4:10] = 1
    ((_, contours), *_) = panels(draw_picture({"image": square}, square, ["blob"]))
    assert len(contours[COLOURS[0]]) == 8  # corners are cut by half a voxel
    noise = volume((torch.rand(100, 100, 100, generator=torch.manual_seed(0)) > 0.7).float(), (1.0, 1.0, 1.0))
    ((_, contours), *_) = panels(draw_picture({"image": noise}, noise, ["blob"]))
    assert 800 < len(contours[COLOURS[0]]) <= 1000


def test_an_empty_prediction_shows_the_middle_of_the_scan():
    svg = draw_picture({"image": one_voxel()}, volume(torch.zeros(10, 8, 6)), ["blob"])
    assert "no voxel is segmented" in svg and [contours for _, contours in panels(svg)] == [{}] * 3
    # The panel has the longest side of the scan, 18 mm, around its middle at 4.5, 7 and 7.5 mm.
    assert re.findall(r'viewBox="([^"]+)"', svg)[1:] == [
        "-2.0 -1.5 18.0 18.0",
        "-4.5 -1.5 18.0 18.0",
        "-4.5 -2.0 18.0 18.0",
    ]


def test_a_blank_scan_is_drawn_and_two_axes_are_an_error():
    blank = volume(torch.full((10, 8, 6), 7.0))
    assert len(panels(draw_picture({"image": blank}, one_voxel(), ["blob"]))) == 3
    flat = MetaTensor(torch.zeros(1, 8, 6), affine=torch.eye(4))
    with pytest.raises(ValueError, match="a picture needs labels with 3 axes, got 2"):
        draw_picture({"image": flat}, flat, ["blob"])


@pytest.mark.parametrize(
    "names, sides",
    [
        (["left_a", "right_a"], {"left": ["left_a"], "right": ["right_a"]}),
        (["Left a", "left-b"], {"left": ["Left a", "left-b"]}),
        (["left_a", "leftover"], {"": ["left_a", "leftover"]}),
        ([], {"": []}),
    ],
)
def test_the_side_is_the_first_word_of_every_class_or_there_is_none(names, sides):
    assert sides_of(names) == sides


@needs_brain_data
def test_a_picture_of_a_tumour_shows_every_modality_in_less_than_200_kb():
    load = LoadImage(ensure_channel_first=True)
    for label in sorted((BRAIN_DATA / "labelsTr").glob("*.nii.gz"))[:3]:
        scan = load(BRAIN_DATA / "imagesTr" / label.name)
        svg = draw_picture({"image": scan}, load(label), ["edema", "non_enhancing", "enhancing"])
        assert re.findall(r'y="16">(channel \d)<', svg) == [f"channel {i}" for i in range(4)]
        assert len(svg) < 200_000 and svg.count("<image") == 12
