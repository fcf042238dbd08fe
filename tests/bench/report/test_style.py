"""How rows look: a colour a family, a marker a method, the same in every report; apart for every reader."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.catalog.catalog import Catalog, installed, reference
from bench.report.style import BLACK, MARKERS, OWN_COLOUR, _places, family, known, looks
from tests.bench.report.made import frame, run

# Machado, Oliveira, Fernandes 2009, "A physiologically-based model for simulation of color vision deficiency", full
VISION = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
PLUGIN = """
from bench import Claims, Method, MethodInfo, register

@register
class Mine(Method):
    info = MethodInfo(name="mine", title="Mine", family="local", paper="", claims=Claims("layer"), role="reference")

    def train_step(self, batch, progress): ...
"""
APART = 15  # in CIELAB: 2 to 3 can just be told apart side by side


def colours() -> dict[str, str]:
    """Those of the suite's families."""
    return installed().methods[reference()].colours


def lab(colour: str, vision: str) -> NDArray[np.float64]:
    """The colour in CIELAB (D65), as such eyes see it."""
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(np.array(VISION[vision]) @ linear, 0, 1) / np.array([0.9505, 1, 1.089])
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISION)
def test_families_are_apart_for_these_eyes(vision: str) -> None:
    seen = {name: lab(colour, vision) for name, colour in (colours() | {"own": OWN_COLOUR}).items()}
    distances = {(a, b): np.linalg.norm(seen[a] - seen[b]) for a, b in combinations(seen, 2)}
    assert min(distances.values()) > APART, min(distances, key=lambda pair: distances[pair])


def test_every_row_has_a_look_of_its_own() -> None:
    names = ["spsa", "forward-forward", "loco", "sigprop", "drtp", "mine", "yours"]
    look = looks(frame([run(m, net=n) for m in names for n in ("mlp", "cnn")] + [run(variant="T=5")]))
    assert len({(style.colour, style.marker, style.fill) for style in look.values()}) == len(look)
    assert look["loco", "mlp", ""].colour == look["sigprop", "cnn", ""].colour != look["spsa", "mlp", ""].colour
    assert look["loco", "mlp", ""].marker == look["loco", "cnn", ""].marker != look["sigprop", "cnn", ""].marker
    assert look["loco", "mlp", ""].label == "loco (mlp)"
    assert look["backprop", "denoiser", "T=5"].label == "backprop T=5"


def test_a_look_does_not_depend_on_what_else_was_run() -> None:
    alone, among = (looks(frame([run(m) for m in of])) for of in (["sigprop"], ["adjoint", "loco", "mine", "sigprop"]))
    assert alone["sigprop", "denoiser", ""] == among["sigprop", "denoiser", ""]


def test_families_are_those_of_the_suite_or_ones_own() -> None:
    assert [family(name) for name in ("backprop", "noprop-dt", "forward-gradient", "<b>mine</b>")] == [
        "backprop",
        "noprop",
        "forward-gradient",
        "own",
    ]


def test_each_method_of_a_family_has_a_marker_of_its_own() -> None:
    for of in colours():
        markers = [place.marker % len(MARKERS) for place in _places().values() if place.family == of]
        assert len(markers) == len(set(markers)) > 0


def test_every_family_of_the_suite_has_its_colour_beside_the_rules() -> None:
    families = {entry.card["family"] for entry in installed().methods.values() if entry.is_ours}
    assert families == set(colours())
    assert colours()[installed().methods[reference()].card["family"]] == BLACK


def test_a_plugin_s_family_is_that_of_its_card(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    assert family("mine") == "own"
    with known(Catalog([tmp_path / "mine.py"])):
        assert family("mine") == "local"
        assert looks(frame([run("mine")]))["mine", "denoiser", ""].colour == OWN_COLOUR
