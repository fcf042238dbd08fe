"""Which code decides what a method or a net does, as a hash.

Hashed is what the code does: the syntax tree, without comments and docstrings, of its file and of all that it imports,
followed to the ends, from its own top-level package, from its own folder where it is a plugin file, and from
`bench.nets`, `bench.methods` and the forms of layers in `bench.api`, which methods and nets share. The rest of the
harness has a version instead (NUMERICS in bench.experiment.identity): it moves no number without being told.
"""

import ast
import hashlib
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from bench.catalog.neighbours import neighbour

HARNESS, NETS, METHODS = "bench", "bench.nets", "bench.methods"
LAYER, FORMS = "bench.api.layer", "bench.api.forms"
UNSEEN = ("ctx", "kind", "type_comment", "type_ignores")  # fields of a syntax tree that change nothing
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def source_hash(file: Path, module: str | None) -> str:
    """module: the import name of the file, or None for a plugin file."""
    return hash_of(texts(file, module))


def hash_of(found: dict[Path, bytes]) -> str:
    """The hash of source texts, whatever folder they lie in: a checkout and a wheel have other folders above them."""
    digest = hashlib.sha256()
    for path in sorted(found, key=lambda path: path.parts[::-1]):
        digest.update(meaning(found[path]).encode() + b"\0")
    return digest.hexdigest()[:16]


def sources(file: Path, module: str | None) -> set[Path]:
    """The file and the files that it imports, as far as they count."""
    return set(texts(file, module))


def texts(file: Path, module: str | None) -> dict[Path, bytes]:
    """What the file and the files that it imports hold, as far as they count; each is read once."""
    package = None if module is None else module.partition(".")[0]
    found: dict[Path, bytes] = {}
    ahead = [file]
    while ahead:
        path = ahead.pop()
        if path not in found:
            found[path] = path.read_bytes()
            for name in imported(found[path]):
                ahead += _counting(name, package, file.parent, path)
    return found


@cache
def meaning(text: bytes) -> str:
    """The syntax tree without comments, docstrings and places; the same in all versions of Python."""
    written = list[str]()
    ahead: list[Any] = [ast.parse(text)]  # a stack, since a tree may be deeper than Python's own
    while ahead:
        part = ahead.pop()
        if isinstance(part, _End):
            written.append(part)
        elif isinstance(part, list):
            written.append("[")
            ahead += [_End("]"), *reversed(part)]
        elif isinstance(part, ast.AST):
            written.append(f"{type(part).__name__}(")
            ahead.append(_End(")"))
            for name, value in reversed(list(ast.iter_fields(part))):
                if name in UNSEEN or value in (None, []):
                    continue
                if name == "body" and isinstance(part, DOCUMENTED) and ast.get_docstring(part, clean=False) is not None:
                    value = value[1:]
                ahead += [value, _End(f"{name}=")]
        else:
            written.append(f"{type(part).__name__}:{part!r}")
    return ",".join(written)


class _End(str):
    """Text to be written as it is, unlike a string of the syntax tree."""


@cache
def imported(text: bytes) -> tuple[str, ...]:
    """Dotted names that a source text may import, also such as are no modules; relative ones begin with dots."""
    return tuple(_imported(ast.parse(text)))


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield module
            yield from (f"{module}{'' if module.endswith('.') else '.'}{alias.name}" for alias in node.names)
        elif name := dynamic_import(node):
            yield name


def _counting(name: str, package: str | None, folder: Path, by: Path) -> list[Path]:
    """The files of a module and of the packages that it lies in, as far as their code counts. by: who imports it."""
    if name.startswith("."):
        base = by.parent
        for _ in range(len(name) - len(name.lstrip(".")) - 1):
            base = base.parent
        own = package is not None or base == folder or folder in base.parents
        return neighbour(name.lstrip("."), base) if own else []
    if package is None and (found := neighbour(name, folder, absolute=True)):
        return found
    shared = name in (NETS, LAYER, FORMS) or name.startswith((f"{NETS}.", f"{METHODS}.", f"{FORMS}."))
    own = package is not None and package != HARNESS and name.partition(".")[0] == package
    file = module_file(name) if shared or own else None
    return [file] if file else []


def dynamic_import(node: ast.AST) -> str | None:
    """The module's name in import_module("name") or __import__("name"); None for any other call, or a name computed."""
    if not isinstance(node, ast.Call) or not node.args or not isinstance(name := node.args[0], ast.Constant):
        return None
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
    return name.value if called in ("import_module", "__import__") and isinstance(name.value, str) else None


@cache
def module_file(module: str) -> Path | None:
    """The Python file of a module; None where there is no such module. Imports its packages, not itself."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, AttributeError, ValueError):
        return None
    found = Path(spec.origin).resolve() if spec and spec.origin else None
    return found if found is not None and found.suffix == ".py" else None
