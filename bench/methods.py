"""The learning rules of the suite: the folder `methods/` beside `bench/`, imported as `bench.methods`.

This module makes that folder its package in a checkout, and so in an editable install. A wheel has the folder in this
module's place (pyproject.toml). Nothing is importable by the plain name `methods`, which is the user's.
"""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[1] / "methods")]
