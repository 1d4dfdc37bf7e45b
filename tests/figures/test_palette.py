"""Colours that stand for something stay apart, also for those who see fewer."""

from itertools import combinations

import numpy as np
import pytest

from darec.figures.palette import CATEGORIES, GREY

# What is left of a colour, linear red, green and blue, at full severity: G. M. Machado, M. M. Oliveira and L. A. F.
# Fernandes. 2009. A Physiologically-based Model for Simulation of Color Vision Deficiency. IEEE Transactions on
# Visualization and Computer Graphics 15, 6, 1291-1298.
SEEN = {
    "all colours": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
XYZ = np.array([[0.41246, 0.35758, 0.18044], [0.21267, 0.71515, 0.07218], [0.01933, 0.11919, 0.95030]])  # of sRGB
FLOOR = 15  # of CIE 1976's distance; 2.3 is just seen


def lab(color: str, seen: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of an sRGB colour `#RRGGBB`, as it is seen."""
    parts = np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    x, y, z = np.cbrt(XYZ @ np.clip(seen @ linear, 0, 1) / XYZ.sum(axis=1))  # none here is as dark as the linear part
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("seen", SEEN)
def test_categories_stay_apart_whoever_looks(seen: str):
    for one, other in combinations((*CATEGORIES, GREY), 2):
        assert np.linalg.norm(lab(one, SEEN[seen]) - lab(other, SEEN[seen])) > FLOOR, (one, other)


def test_the_distance_is_that_of_known_colours():
    np.testing.assert_allclose(lab("#FF0000", SEEN["all colours"]), [53.24, 80.09, 67.20], atol=0.02)
    red, green = (lab(color, SEEN["deuteranopia"]) for color in ("#C86E00", "#829A00"))
    assert np.linalg.norm(red - green) < FLOOR < np.linalg.norm(lab("#C86E00", np.eye(3)) - lab("#829A00", np.eye(3)))
