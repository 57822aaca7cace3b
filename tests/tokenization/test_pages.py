"""The colours of the pages: told apart by every eye, on both grounds, and one per component."""

import itertools

import numpy as np
import pytest

from tokenization.pages import DARK, DASHES, GROUND, LIGHT, Style, css, place_styles

EYES = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
               [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
"""Linear sRGB as seen without one kind of cone: Machado et al. 2009, severity 1."""


def linear(colour: str) -> np.ndarray:
    value = np.array([int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def oklab(light: np.ndarray) -> np.ndarray:
    """https://bottosson.github.io/posts/oklab/"""
    to_cones = [[0.4122214708, 0.5363325363, 0.0514459929],
                [0.2119034982, 0.6806995451, 0.1073969566],
                [0.0883024619, 0.2817188376, 0.6299787005]]  # fmt: skip
    to_lab = [[0.2104542553, 0.7936177850, -0.0040720468],
              [1.9779984951, -2.4285922050, 0.4505937099],
              [0.0259040371, 0.7827717662, -0.8086757660]]  # fmt: skip
    return np.array(to_lab) @ np.cbrt(np.array(to_cones) @ np.clip(light, 0, 1))


@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize("series", [LIGHT, DARK], ids=["light", "dark"])
def test_every_eye_tells_any_two_components_apart(series, eye):
    seen = [oklab(np.array(EYES[eye]) @ linear(colour)) for colour in series]
    nearest = {
        count: min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen[:count], 2))
        for count in (8, 12)
    }
    assert nearest[8] >= 0.1
    assert nearest[12] >= 0.085


@pytest.mark.parametrize(("series", "scheme"), [(LIGHT, "light"), (DARK, "dark")])
def test_every_colour_stands_out_from_the_page(series, scheme):
    def luminance(colour):
        return float(linear(colour) @ [0.2126, 0.7152, 0.0722]) + 0.05

    for colour in series:
        ratio = luminance(colour) / luminance(GROUND[scheme])
        assert max(ratio, 1 / ratio) >= 3, colour


def test_a_component_has_the_colour_of_its_place():
    assert place_styles([["b", "a"]]) == {"b": Style(0), "a": Style(1)}
    assert place_styles([["b", "a"]], ["a", "b"]) == {"b": Style(0), "a": Style(1)}


def test_a_second_mixtures_components_keep_their_colours_and_are_dashed():
    styles = place_styles([["a", "b"], ["c", "b", "d"]], ["c + d", "new"])
    assert styles == {
        "a": Style(0), "b": Style(1), "c": Style(0, 1), "d": Style(2), "c + d": Style(0, 2),
        "new": Style(5),
    }  # fmt: skip


def test_many_components_are_all_different():
    names = [str(k) for k in range(len(LIGHT) * len(DASHES))]
    styles = place_styles([names])
    assert len({(style.ink, style.line) for style in styles.values()}) == len(names)


def test_both_schemes_name_the_same_variables():
    light, dark = css().split("@media (prefers-color-scheme: dark)")
    names = [{each.split(":")[0] for each in part.split() if each.startswith("--")}
             for part in (light, dark)]  # fmt: skip
    assert names[0] == names[1]
    assert {f"--c{k}" for k in range(12)} < names[0]
