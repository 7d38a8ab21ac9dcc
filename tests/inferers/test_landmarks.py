import math

import pytest
import torch

from rare_unet_networks.inferers.landmarks import HIPPOCAMPI, Landmarks, upright_rotation

LOW, HIGH = torch.zeros(3), torch.full((3,), 200.0)
CENTRE = torch.tensor([100.0, 100.0, 100.0], dtype=torch.float64)
NAN = float("nan")


def turn(degrees, axis):
    a, b = (axis + 1) % 3, (axis + 2) % 3
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[a, a] = matrix[b, b] = math.cos(math.radians(degrees))
    matrix[b, a] = math.sin(math.radians(degrees))
    matrix[a, b] = -matrix[b, a]
    return matrix


def landmarks(rotation=None, centre=CENTRE, without=()):
    points = HIPPOCAMPI.points() @ (torch.eye(3, dtype=torch.float64) if rotation is None else rotation).T + centre
    points[list(without)] = NAN
    return Landmarks(points, torch.ones(4))


def test_the_right_landmarks_are_the_mirrored_left_ones():
    left_anterior, left_posterior, right_anterior, right_posterior = HIPPOCAMPI.points().tolist()
    assert left_anterior == pytest.approx([-24.4, 9.3, -4.0]) and left_posterior == pytest.approx([-25.6, -9.3, 4.0])
    assert right_anterior == pytest.approx([24.4, 9.3, -4.0]) and right_posterior == pytest.approx([25.6, -9.3, 4.0])


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("degrees", [0, 10, -40])
def test_a_turned_head_is_measured(axis, degrees):
    rotation = upright_rotation(landmarks(turn(degrees, axis)).points, HIPPOCAMPI)
    torch.testing.assert_close(rotation, turn(degrees, axis), atol=0.03, rtol=0)


def test_one_side_gives_the_smallest_turn_of_its_axis():
    # About its own axis nothing is known: a turn about it is not invented.
    axis = torch.tensor(HIPPOCAMPI.axis, dtype=torch.float64)
    rotation = upright_rotation(landmarks(without=(2, 3)).points, HIPPOCAMPI)
    torch.testing.assert_close(rotation, torch.eye(3, dtype=torch.float64), atol=1e-6, rtol=0)
    turned = landmarks(turn(30, 2), without=(2, 3))
    rotation = upright_rotation(turned.points, HIPPOCAMPI)
    seen = rotation @ axis / axis.norm()
    torch.testing.assert_close(seen, turn(30, 2) @ axis / axis.norm(), atol=0.03, rtol=0)


def test_a_missing_half_comes_from_the_template():
    whole, half = landmarks(turn(20, 0)), landmarks(turn(20, 0), without=(1,))
    for found in (whole, half):
        assert found.sides() == ["left", "right"]
        centre = found.centre("left", turn(20, 0), HIPPOCAMPI)
        torch.testing.assert_close(centre, CENTRE - turn(20, 0) @ torch.tensor([25.0, 0, 0], dtype=torch.float64))


@pytest.mark.parametrize(
    "found, expected",
    [
        (landmarks(), []),
        (landmarks(without=(2, 3)), ["the right one was not found: it is not in the scan"]),
        (landmarks(without=(1,)), ["the left one is not wholly in the scan"]),
        # The front end lies 20.2 mm before the centre: at 23 mm from the border it has less than the radius of 6 mm.
        (landmarks(centre=torch.tensor([100.0, 177.0, 100.0])), ["the left one is not wholly in the scan"] * 2),
        (landmarks(centre=torch.tensor([100.0, 160.0, 100.0])), []),
    ],
)
def test_what_is_missing_or_cut_is_named(found, expected):
    expected = [*expected[:1], *(text.replace("left", "right") for text in expected[1:])]
    assert found.reasons(LOW, HIGH, HIPPOCAMPI) == expected


def test_what_no_head_shows_is_in_doubt():
    apart = landmarks()
    apart.points[2:, 0] += 40  # 90 mm instead of 50
    crossing = landmarks()
    crossing.points[2:] = crossing.points[2:].flip(0)
    long = landmarks()
    long.points[0, 1] += 20
    expected = {
        "left and right are 90 mm apart": apart,
        "left and right differ by 173 degrees in direction": crossing,
        "the left one seems 1.9 times as long as usual": long,
    }
    for reason, found in expected.items():
        assert found.reasons(LOW, HIGH, HIPPOCAMPI) == [f"the places are in doubt: {reason}"]
    doubted = landmarks()
    doubted.doubts.append("two resolutions place them 20 mm apart")
    assert doubted.reasons(LOW, HIGH, HIPPOCAMPI) == ["the places are in doubt: two resolutions place them 20 mm apart"]


def test_wrong_shapes_are_errors():
    with pytest.raises(ValueError, match=r"shape \(4, 3\) with 4 confidences, got shapes \(2, 3\) and \(4,\)"):
        Landmarks(torch.zeros(2, 3), torch.ones(4))
