"""Which rows nothing else beats in both respects."""

from collections.abc import Sequence


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Of points (cost, value) those that no other is at least as cheap and as good as, and better in one; by cost."""
    found: list[int] = []
    for k in sorted(range(len(points)), key=lambda k: (points[k][0], -points[k][1])):
        if not found or points[k][1] > points[found[-1]][1] or points[k] == points[found[-1]]:
            found.append(k)
    return found
