"""`bench doctor`: what it notices about the installation."""

from bench.cli.doctor import others_of


def test_another_distribution_with_a_package_of_our_name_is_named() -> None:
    assert others_of({"bench": ["backprop-free-bench", "backprop-free-bench", "bench"], "x": ["y"]}) == ["bench"]
    assert others_of({"bench": ["backprop-free-bench"]}) == []
    assert others_of({}) == []
