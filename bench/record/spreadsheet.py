"""Cells of CSV files that people open in a spreadsheet, which takes some texts for formulas."""

import re

_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?", re.I | re.A)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the last four: full-width signs


def cell(value: object) -> object:
    """The value as a cell; a text that a spreadsheet would take for a formula begins with an apostrophe."""
    if not isinstance(value, str) or not value.lstrip(" \n").startswith(_FORMULA):
        return value
    return value if _NUMBER.fullmatch(value) else f"'{value}"
