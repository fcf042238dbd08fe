"""Tables in narrow terminals: numbers and names stay whole, what has no room is left out by rank and named."""

import pytest

from bench.display.fitting import GAP, fit, fold

NAME = "direct-feedback-alignment"
HEADERS = ["data set", "method", "variant", "test acc, %", "train, s", "step p50, ms", "retained, MiB"]
ROWS = [
    ["digits", NAME, "width=16, gradient=jvp", "9.17 ± 21.18", "0.586", "29.2", "0.0234"],
    ["digits", "backprop", "-", "98.06 ± 0.88", "12,345.6", "1.21", "1e-07"],
]


def widest(headers: list[str], rows: list[list[str]]) -> int:
    columns = zip(headers, *rows, strict=True)
    return sum(max(len(line) for cell in cells for line in cell.split("\n")) + GAP for cells in columns) - GAP


def test_a_table_with_room_is_left_alone() -> None:
    fitted = fit(HEADERS, ROWS, 240)
    assert (fitted.rows, fitted.alike, fitted.left_out) == (ROWS, [], [])


@pytest.mark.parametrize("width", range(45, 130))
def test_no_width_cuts_a_number_or_a_name(width: int) -> None:
    fitted = fit(HEADERS, ROWS, width, least=["step p50, ms"])
    assert widest(fitted.headers, fitted.rows) <= width
    cells = [cell for row in fitted.rows for cell in row]
    assert NAME in cells
    numbers = {cell for row in ROWS for cell in row[3:]}
    assert all(cell in numbers for row in fitted.rows for cell in row if cell[0].isdigit())
    assert all(" ".join(header.split()) in HEADERS for header in fitted.headers)


def test_what_is_alike_goes_first_then_the_least_then_the_last() -> None:
    by_width = [fit(HEADERS, ROWS, width, least=["step p50, ms"]) for width in range(100, 45, -1)]
    steps = list(dict.fromkeys((*fitted.alike, *fitted.left_out) for fitted in by_width))
    last = ["step p50, ms", "retained, MiB"]
    assert steps[:4] == [(), ("data set digits",), ("data set digits", last[0]), ("data set digits", *last)]


def test_one_row_is_not_alike() -> None:
    assert fit(HEADERS, ROWS[:1], 70).alike == []


def test_prose_folds_at_words_and_a_long_path_where_it_must() -> None:
    assert fold("one two three", 7) == "one two\nthree"
    assert fold("x" * 10, 4) == "xxxx\nxxxx\nxx"
    assert fold("1,234,567,890", 4) == "1,234,567,890"
