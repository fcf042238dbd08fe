"""What can be said of a method, net, data set or instrument from its source, without running it."""

import ast
from pathlib import Path
from typing import Any

CARDS = ("MethodInfo", "DataSetInfo")

Card = dict[str, Any]


def cards(file: Path) -> dict[str, Card]:
    """By name: the literal arguments of each `info = MethodInfo(...)` or `DataSetInfo(...)`, and for each class with a
    literal `name` the first line of what is said of it.
    """
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError):
        return {}
    found: dict[str, Card] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) in CARDS:
            card = {"nets": ("*",)} if node.func.id == "MethodInfo" else {}  # type: ignore[attr-defined]
            card |= {k.arg: ast.literal_eval(k.value) for k in node.keywords if k.arg and _is_literal(k.value)}
            found[str(card.get("name"))] = card
        elif isinstance(node, ast.ClassDef) and (name := _name(node)):
            found.setdefault(name, {"name": name, "title": _title(node, tree)})
    return found


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


def _name(node: ast.ClassDef) -> str | None:
    """`name = "..."` in the body of a class."""
    for line in node.body:
        if isinstance(line, ast.Assign) and [getattr(target, "id", None) for target in line.targets] == ["name"]:
            return str(line.value.value) if isinstance(line.value, ast.Constant) else None
    return None


def _title(node: ast.ClassDef, tree: ast.Module) -> str:
    """The first line of the module's page, or of the class's where the module has several."""
    alone = sum(isinstance(other, ast.ClassDef) and _name(other) is not None for other in tree.body) == 1
    page = (ast.get_docstring(tree) if alone else None) or ast.get_docstring(node) or ""
    return page.partition("\n")[0]
