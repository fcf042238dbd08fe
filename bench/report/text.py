"""What other people wrote (names, reasons, error messages), made safe to print."""

import re
import textwrap


def one_line(value: object, limit: int = 300) -> str:
    """The value as one printable line: no line break, terminal code or invisible character is left in it."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def printable(text: str) -> str:
    """Several lines without terminal codes or invisible characters."""
    return "\n".join("".join(c if c.isprintable() or c == "\t" else " " for c in line) for line in text.split("\n"))


# Entities where a backslash would not do in every renderer: HTML, and the bars of a table.
_MARKDOWN = str.maketrans({c: f"\\{c}" for c in "\\`*_[]~$"} | {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"})
_ADDRESS = re.compile(r"(?<=[a-z]):(?=//)|(?<=mailto):|(?<=xmpp):|(?<=www)\.", re.I)


def markdown(value: object) -> str:
    """The value as one line of Markdown that shows its characters and does nothing else."""
    text = one_line(value).translate(_MARKDOWN).replace("@", "@&#8288;")  # a word joiner: no mention, no address
    return _ADDRESS.sub(lambda found: f"&#{ord(found[0])};", text)


def figure(value: object) -> str:
    """The value as a label in a figure: short lines, no mathematics, and never hidden from the legend."""
    text = textwrap.fill(one_line(value, limit=110), 40, break_on_hyphens=False).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def file_name(value: object) -> str:
    """The value as the stem of a file name, that leaves no folder."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in str(value))[:80] or "_"
