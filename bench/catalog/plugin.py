"""A plugin file as a module of a package of its own, whose other modules are the plugin's neighbours.

`import helper` in the file, or in a neighbour, is compiled as an import from that package: two plugins that each have a
helper.py get each its own. So is `import_module("helper")`. All modules are compiled from the texts that were read, and
hashed, at once: an import inside a function runs what was hashed, too, whatever was edited since.
"""

import ast
import hashlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType

from bench.catalog.neighbours import neighbour
from bench.catalog.sources import dynamic_import, hash_of, texts
from bench.catalog.untouched import untouched


def import_file(file: Path) -> ModuleType:
    """The module of a plugin file, one for each state of the file and its neighbours."""
    found = texts(file, None)
    state = hashlib.sha256(repr(sorted((str(path), text) for path, text in found.items())).encode())
    package = f"bench_plugin_{file.stem.replace('.', '_')}_{state.hexdigest()[:12]}"
    name = f"{package}.{file.stem.replace('.', '_')}"
    if name not in sys.modules:
        sys.meta_path[:] = [finder for finder in sys.meta_path if getattr(finder, "package", None) != package]
        sys.meta_path.append(_Neighbours(package, name, file, found))
        with untouched():
            try:
                importlib.import_module(name)
            except BaseException:  # a stop, too, leaves no half-loaded package behind
                for loaded in [key for key in sys.modules if key.partition(".")[0] == package]:
                    del sys.modules[loaded]
                raise
    return sys.modules[name]


def loaded_hash(module: str) -> str | None:
    """The hash of the texts that a plugin's module was compiled from; None for a module of no plugin."""
    package = module.partition(".")[0]
    of = next(
        (finder for finder in sys.meta_path if isinstance(finder, _Neighbours) and finder.package == package), None
    )
    return None if of is None else hash_of(of.texts)


class _Neighbours(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds and compiles the modules of one plugin's package."""

    def __init__(self, package: str, name: str, file: Path, found: dict[Path, bytes]) -> None:
        self.package, self.name, self.file, self.texts = package, name, file, found

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] != self.package:
            return None
        if fullname == self.package:
            return ModuleSpec(fullname, None, is_package=True)
        file = self._file(fullname)
        if file is None:
            place = self.file.parent.joinpath(*fullname.split(".")[1:])
            holds = any(place in path.parents for path in self.texts)
            return ModuleSpec(fullname, None, is_package=True) if holds else None
        spec = ModuleSpec(fullname, self, origin=str(file), is_package=file.name == "__init__.py" and file != self.file)
        spec.has_location = True
        return spec

    def get_source(self, fullname: str) -> str:
        file = self._file(fullname)
        if file is None:
            raise ImportError(f"no module {fullname}")
        return importlib.util.decode_source(self.texts[file])

    def get_code(self, fullname: str) -> CodeType:
        file = self._file(fullname)
        assert file is not None
        tree = _Private(self.package, self.file.parent).visit(ast.parse(self.texts[file], str(file)))
        return compile(ast.fix_missing_locations(tree), str(file), "exec", dont_inherit=True)

    def is_package(self, fullname: str) -> bool:
        file = self._file(fullname)
        return file is not None and file.name == "__init__.py" and file != self.file

    def _file(self, fullname: str) -> Path | None:
        if fullname == self.name:
            return self.file
        parts = fullname.split(".")[1:]
        found = neighbour(".".join(parts), self.file.parent)
        place = self.file.parent.joinpath(*parts)
        own = [path for path in found if path in (place / "__init__.py", place.with_name(f"{place.name}.py"))]
        return own[-1] if own and own[-1] in self.texts else None


class _Private(ast.NodeTransformer):
    """Turns imports of neighbours by their plain names into imports from the plugin's package."""

    def __init__(self, package: str, folder: Path) -> None:
        self.package, self.folder = package, folder

    def visit_Import(self, node: ast.Import) -> ast.AST | list[ast.AST]:
        made: list[ast.AST] = []
        for alias in node.names:
            if not self._is_neighbour(alias.name):
                made.append(ast.Import([alias]))
                continue
            top = alias.name.partition(".")[0]
            made.append(ast.Import([ast.alias(f"{self.package}.{alias.name}", alias.asname or top)]))
            if alias.asname is None and top != alias.name:  # `import a.b` binds a
                made.append(ast.ImportFrom(self.package, [ast.alias(top)], 0))
        return [ast.copy_location(new, node) for new in made]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)] if node.module else []
        if node.level == 0 and any(map(self._is_neighbour, names)):
            node.module = f"{self.package}.{node.module}"
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name = dynamic_import(node)
        if name is not None and self._is_neighbour(name):
            node.args[0] = ast.copy_location(ast.Constant(f"{self.package}.{name}"), node.args[0])
            if isinstance(node.func, ast.Name) and node.func.id == "__import__" and "." not in name:
                names = ast.List([ast.Constant("__name__")], ast.Load())  # else it returns the package
                node.args, node.keywords = node.args[:1], [ast.keyword("fromlist", names)]
        return node

    def _is_neighbour(self, name: str) -> bool:
        return not name.startswith(".") and bool(neighbour(name, self.folder, absolute=True))
