"""YAML as experiments are written in it: one reading of every text, or one line."""

import time

import pytest

from bench.experiment.strict_yaml import dump, parse

BOMB = "\n".join(["a0: &a0 [x, x]", *(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 15))])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("-2.5e-1", -0.25),
        (".5e1", 5.0),
        ("5.", 5.0),
        ("3", 3),
        ("0x1f", 31),
        ("0o17", 15),
        ("adam", "adam"),
        ("true", True),
        ("1e", "1e"),
        ("1:30", "1:30"),
        ("yes", "yes"),
        ("off", "off"),
        ("2020-01-01", "2020-01-01"),
        ("2020-99-99", "2020-99-99"),
        ("1_000", "1_000"),
        ("0b1", "0b1"),
        ("0x_", "0x_"),
        ("'010'", "010"),
        ("", None),
        ("on: 1", {"on": 1}),
        ("010: a", {"010": "a"}),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
    ],
)
def test_scalars_of_the_core_schema(text: str, value: object) -> None:
    assert parse(text) == value
    assert type(parse(text)) is type(value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("010", "two readings, decimal and octal"),
        ("x: -007", r"two readings.*\(line 1\)"),
        ("9" * 5001, "a number of 5,001 characters"),
        ("seeds: 3\nlr: 1\nseeds: [7]", r"key 'seeds' stands twice \(line 3\)"),
        ("a: {b: 1, b: 2}", "key 'b' stands twice"),
        ("!!python/object:x y", "tags are not read"),
        ("!own 3", "tags are not read"),
        ("a: 1\n--- \nb: 2", "a second document"),
        ("? [a]\n: b", "no key"),
        ("&a [*a]", "alias 'a' stands for nothing"),
        ('"\\e[31m"', "control character"),
        ("[" * 100_000, "more than 20 levels"),
        ("{a: " * 40_000, "more than 20 levels"),
        ("- " * 90_000, "more than 20 levels"),
        (BOMB, "more than 20,000 values"),
        ("a: 1\n" * 60_000, "at most 200,000"),
        ("[1, 2", r"expected .* \(line 1\)"),
        ("a\x00b", "special characters"),
    ],
)
def test_what_has_two_readings_or_is_too_much_is_refused_at_once(text: str, complaint: str) -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match=complaint) as error:
        parse(text)
    assert time.process_time() - began < 1.0
    assert "\n" not in str(error.value)


def test_aliases_do_not_deepen_what_is_bounded() -> None:
    nested = "a: &a " + "[" * 15 + "]" * 15 + "\nb: " + "[" * 15 + "*a" + "]" * 15
    with pytest.raises(ValueError, match="more than 20 levels"):
        parse(nested)


def test_what_is_written_is_read_the_same() -> None:
    twice = {"lr": 1e-05}
    texts = ["12e4567", "0o17", "010", "yes", "1:30", "2020-01-01", "~", "null", "", "a: b", "1.5", ".5", "0x1f", "é"]
    value = [{"commit": text, "best": twice, "n": 3, "none": None, "on": True} for text in texts]
    assert parse(dump(value)) == value
