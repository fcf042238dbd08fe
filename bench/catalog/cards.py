"""What can be said of a method, net, data set or instrument from its source, without running it."""

import ast
from pathlib import Path
from typing import Any

CARDS = ("MethodInfo", "DataSetInfo")

Card = dict[str, Any]


def cards(file: Path) -> dict[str, Card]:
    """By name: the literal arguments of each class's `info = MethodInfo(...)` or `DataSetInfo(...)`, and for each class
    with a literal `name` the first line of what is said of it.
    """
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError):
        return {}
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    alone = sum(_name(node) is not None for node in classes) == 1
    found: dict[str, Card] = {}
    for node in classes:
        if card := _info(node):
            found[str(card.get("name"))] = card
        elif name := _name(node):
            found[name] = {"name": name, "title": _title(node, tree if alone else node)}
    return found


def _info(node: ast.ClassDef) -> Card | None:
    """`info = MethodInfo(...)` in the body of a class, as far as its arguments are literal."""
    call = _assigned(node, "info")
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in CARDS):
        return None
    card: Card = {"nets": ("*",)} if call.func.id == "MethodInfo" else {}
    for keyword in call.keywords:
        if keyword.arg and (value := _literal(keyword.value)) is not None:
            card[keyword.arg] = value
    return card


def _name(node: ast.ClassDef) -> str | None:
    """`name = "..."` in the body of a class."""
    value = _assigned(node, "name")
    return str(value.value) if isinstance(value, ast.Constant) else None


def _assigned(node: ast.ClassDef, name: str) -> ast.expr | None:
    """What `name = ...` in the body of a class gives to the name."""
    for line in node.body:
        if isinstance(line, ast.Assign) and [getattr(target, "id", None) for target in line.targets] == [name]:
            return line.value
    return None


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def _title(node: ast.ClassDef, page: ast.Module | ast.ClassDef) -> str:
    """The first line of what the page says, or else the class."""
    return (ast.get_docstring(page) or ast.get_docstring(node) or "").partition("\n")[0]
