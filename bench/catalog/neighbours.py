"""Modules and packages that lie beside a plugin file."""

import sys
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path


def neighbour(name: str, folder: Path, *, absolute: bool = False) -> list[Path]:
    """The files that an import of a dotted name runs, from a folder: those of its packages and its own.

    absolute: the name is one that an installed package may have; the package has it then. Empty where there is none.
    """
    parts = name.split(".") if name else []
    if not parts or (absolute and is_installed(parts[0])):
        return [init] if not parts and (init := folder / "__init__.py").is_file() else []
    found, place = [], folder
    for part in parts:
        place = place / part
        for file in (place / "__init__.py", place.with_name(f"{part}.py")):
            if file.is_file():
                found.append(file)
                break
        else:
            if not place.is_dir():
                break
    return found


@cache
def is_installed(name: str) -> bool:
    """Whether a top-level name is one of Python's, the suite's, or of an installed package."""
    if name in sys.stdlib_module_names or name == "bench":
        return True
    places = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    return PathFinder.find_spec(name, places) is not None
