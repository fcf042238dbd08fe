"""YAML as experiments are written in it."""

import pytest

from bench.spec.reading import parse_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("-2.5e-1", -0.25),
        (".5e1", 5.0),
        ("3", 3),
        ("adam", "adam"),
        ("true", True),
        ("1e", "1e"),
    ],
)
def test_numbers_in_yaml(text: str, value: object) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)
