"""Which code decides what a method or a net does, as a hash.

Hashed are the bytes of its file and of all that it imports, followed to the ends, from its own top-level package, from
its own folder where it is a plugin file, and from `bench.nets`, whose layers methods and nets share. The rest of the
harness has a version instead (NUMERICS in bench.spec.identity): it moves no number without being told.
"""

import ast
import hashlib
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path

HARNESS, SHARED = "bench", "bench.nets"


def source_hash(file: Path, module: str | None) -> str:
    """module: the import name of the file, or None for a plugin file."""
    digest = hashlib.sha256()
    for path in sorted(sources(file, module)):
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def sources(file: Path, module: str | None) -> set[Path]:
    """The file and the files that it imports, as far as they count."""
    package = None if module is None else module.partition(".")[0]
    seen: set[Path] = set()
    ahead = [file]
    while ahead:
        path = ahead.pop()
        if path not in seen:
            seen.add(path)
            ahead += [found for name in imported(path) if (found := _counting(name, package, file.parent))]
    return seen


def imported(file: Path) -> Iterator[str]:
    """Dotted names that a file may import, also those that turn out to be no modules; relative ones made absolute."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield module
            yield from (f"{module}{'' if module.endswith('.') else '.'}{alias.name}" for alias in node.names)


def _counting(name: str, package: str | None, folder: Path) -> Path | None:
    """The file of a module whose code counts."""
    if package is None and (neighbour := _neighbour(name, folder)):
        return neighbour
    shared = name == SHARED or name.startswith(f"{SHARED}.")
    own = package is not None and package != HARNESS and name.partition(".")[0] == package
    return module_file(name) if shared or own else None


def _neighbour(name: str, folder: Path) -> Path | None:
    place = folder.joinpath(*name.lstrip(".").split("."))
    found = (place.with_suffix(".py"), place / "__init__.py")
    return next((path.resolve() for path in found if path.is_file()), None)


@cache
def module_file(module: str) -> Path | None:
    """The Python file of a module; None where there is no such module. Imports its packages, not itself."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, AttributeError, ValueError):
        return None
    found = Path(spec.origin).resolve() if spec and spec.origin else None
    return found if found is not None and found.suffix == ".py" else None
