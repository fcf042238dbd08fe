"""A class that Python code hands to `bench.run`, as something that the processes of runs can import.

A class of a package is imported from there; the file of any other module is a plugin. A class of a notebook or of the
script that runs lives in `__main__`, which no other process imports: it is written to a plugin file, with the imports,
functions, classes and constants of `__main__` that it uses. Other values (a tensor, a data set) are refused, for each
process would make them anew. The code of the class in the file is compared with that of the class that was given.
"""

import ast
import builtins
import copy
import hashlib
import importlib
import os
import re
import symtable
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.api.errors import PluginError, StoreError
from bench.catalog.alike import difference, is_comparable, is_literal
from bench.catalog.neighbours import is_installed
from bench.catalog.plugin import import_file, loaded_hash
from bench.catalog.sources import meaning

HEAD = '"""{name}, as it was given to bench.run. Written by the suite; put the class into a file to go on with it."""\n'
FUTURE = "from __future__ import annotations"
_IMPORT = re.compile(r"(from|import) ")
MEND = "put the class into a .py file and give that as plugins=[FILE]"


def home(cls: type, folder: Path) -> tuple[Path, str | None]:
    """The file of a class, and the module that processes import it from; None for a plugin file.

    folder: where a class of `__main__` is written to. Raises: PluginError in one line, StoreError.
    """
    module = cls.__module__
    if module == "__main__":
        return write(cls, folder), None
    file = getattr(sys.modules.get(module), "__file__", None)
    if not file or not file.endswith(".py"):
        raise PluginError(f"class {cls.__name__} of {module} comes from no Python file; {MEND}")
    top = module.partition(".")[0]
    elsewhere = [entry for entry in sys.path if os.path.realpath(entry) != os.path.realpath(os.getcwd())]
    is_found = PathFinder.find_spec(top, elsewhere) is not None and loaded_hash(module) is None
    return Path(file).resolve(), module if is_found and (top != module or is_installed(top)) else None


def write(cls: type, folder: Path) -> Path:
    """The plugin file of a class of `__main__`. Raises: PluginError in one line where it cannot be one, StoreError."""
    if "." in cls.__qualname__:
        raise PluginError(f"class {cls.__name__} is made inside {cls.__qualname__.rpartition('.')[0]}; {MEND}")
    main = sys.modules[cls.__module__]
    imports, others = _Needed(cls, main).statements()
    text = "\n".join([HEAD.format(name=cls.__name__), *imports, *others, ""])
    digest = hashlib.sha256(meaning(text.encode()).encode()).hexdigest()[:8]
    path = folder / f"{cls.__name__.lower()}_{digest}.py"
    if not path.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror}") from error
    try:
        _compare(cls, path, main)
    except PluginError:
        path.unlink()
        raise
    return path


class _Needed:
    """The statements that a class needs, from the latest texts that bind their names."""

    def __init__(self, cls: type, main: ModuleType) -> None:
        self.cls, self.values = cls, vars(main)
        self.texts = [(_parsed(text), text.splitlines()) for text in _texts(main)]
        self.done: dict[str, list[str]] = {}

    def statements(self) -> tuple[list[str], list[str]]:
        """The imports, and all else in an order in which each finds what it needs."""
        self._add(self.cls.__name__)
        lines = [line for lines in self.done.values() for line in lines]
        is_future = any(FUTURE in map(ast.unparse, tree.body) for tree, _ in self.texts)
        imports = [line for line in lines if _IMPORT.match(line)]
        return [*([FUTURE] if is_future else []), *imports], [line for line in lines if not _IMPORT.match(line)]

    def _add(self, name: str) -> None:
        """A name, after all that it needs itself."""
        if name in self.done or (name not in self.values and hasattr(builtins, name)):
            return
        node, text = self._binding(name)
        if node is None and name not in self.values:
            return  # used where it is never reached, or under TYPE_CHECKING
        self.done[name] = []  # so that functions may call each other
        lines = self._lines(name, node, text)
        del self.done[name]
        self.done[name] = lines

    def _lines(self, name: str, node: ast.stmt | None, text: str) -> list[str]:
        value = self.values.get(name)
        if isinstance(node, ast.Import | ast.ImportFrom):
            self._check_reach(name, node.module if isinstance(node, ast.ImportFrom) else node.names[0].name)
            return [ast.unparse(node)]
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            for used in _used(node):
                self._add(used)
            return ["", "", text]
        if is_literal(value):  # as it is now, whatever the statement said
            return [f"{name} = {value!r}"]
        if origin := _origin(value):
            self._check_reach(name, origin[0])
            module, attribute = origin
            if not attribute:
                return [f"import {module} as {name}"]
            return [f"from {module} import {attribute}" + ("" if attribute == name else f" as {name}")]
        if node is None or (name in self.values and not is_comparable(value)):
            what = "the source" if name == self.cls.__name__ else f"'{name}' ({type(value).__name__}), which"
            lacks = f"{what} is not known" if node is None else f"{what} each process would make anew"
            raise PluginError(f"class {self.cls.__name__}: {lacks}; {MEND}")
        for used in _used(node):
            self._add(used)
        return [text]

    def _binding(self, name: str) -> tuple[ast.stmt | None, str]:
        """The latest statement that binds a name, and its text; of an import the one name alone."""
        for tree, lines in self.texts:
            for node in reversed(tree.body):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    names = [of for of in node.names if name == (of.asname or of.name.partition(".")[0])]
                    if names:
                        one = copy.copy(node)
                        one.names = names
                        return one, ast.unparse(one)
                elif name in _bound(node):
                    first = min(part.lineno for part in (node, *getattr(node, "decorator_list", ())))
                    return node, "\n".join(lines[first - 1 : node.end_lineno])
        return None, ""

    def _check_reach(self, name: str, module: str | None) -> None:
        """Raises: PluginError for what lies beside the notebook, where processes of runs import nothing."""
        top = (module or "").partition(".")[0]
        if not top or not is_installed(top):
            raise PluginError(
                f"class {self.cls.__name__}: '{name}' is of {module or '.'}, a module that is not installed; {MEND}"
            )


def _texts(main: ModuleType) -> list[str]:
    """What was executed in `__main__`, the latest first: the cells of a notebook, or the script."""
    cells = vars(main).get("In")
    if isinstance(cells, list):
        return [str(cell) for cell in reversed(cells)]
    file = getattr(main, "__file__", None)
    return [Path(file).read_text(encoding="utf-8")] if file and Path(file).is_file() else []


def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError:  # a cell that failed
        return ast.Module([], [])


def _bound(node: ast.stmt) -> set[str]:
    """The names that a statement binds, other than by an import or inside an if, a loop or a try."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _used(node: ast.stmt) -> list[str]:
    """The global names that a statement refers to."""
    own = {node.name} if isinstance(node, ast.ClassDef | ast.FunctionDef) else set()
    ahead = [symtable.symtable(ast.unparse(node), "<given>", "exec")]
    found = dict[str, None]()
    while ahead:
        table = ahead.pop()
        ahead += table.get_children()
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (table.get_type() == "module" or symbol.is_global()):
                found[symbol.get_name()] = None
    return [name for name in found if name not in own]


def _origin(value: Any) -> tuple[str, str] | None:
    """Module and name from which a value can be imported; of a module its name and nothing."""
    if isinstance(value, ModuleType):
        return value.__name__, ""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__" or not name.isidentifier():
        return None
    try:
        return (module, name) if getattr(importlib.import_module(module), name, None) is value else None
    except ImportError:
        return None


def _compare(cls: type, path: Path, main: ModuleType) -> None:
    """Raises: PluginError where the file has other code, or other values, than were given."""
    try:
        loaded = import_file(path)
    except Exception as error:  # whatever the text raises
        why = " ".join(str(error).split())[:100]
        raise PluginError(f"class {cls.__name__} cannot be imported by itself ({why}); {MEND}") from error
    if other := difference(vars(loaded), vars(main)):
        what = f"'{other}' ({type(vars(main)[other]).__name__})"
        raise PluginError(f"class {cls.__name__}: its source makes {what} otherwise than it is here; {MEND}")
