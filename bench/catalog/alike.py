"""Whether what a file makes, in another process too, is what is here: values by equality, code by its instructions."""

import ast
import dis
import re
from collections.abc import Mapping
from types import CodeType
from typing import Any

_NULL = re.compile(r"^NULL(\|self)? \+ | \+ NULL(\|self)?$")


def difference(loaded: Mapping[str, Any], given: Mapping[str, Any]) -> str | None:
    """A name of both that has another value, or other code, in one than in the other; None where all are alike."""
    for name, value in loaded.items():
        if name.startswith("__") or name not in given or value is given[name]:
            continue
        has_code = isinstance(value, type) or isinstance(getattr(value, "__code__", None), CodeType)
        if not (_codes(value) == _codes(given[name]) if has_code else _equal(value, given[name])):
            return name
    return None


def is_literal(value: Any) -> bool:
    """Whether Python reads back what it writes of a value."""
    if type(value) not in (type(None), bool, int, float, complex, str, bytes, list, tuple, set, dict):
        return False
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, SyntaxError, TypeError):  # of a tensor in a list, of infinity
        return False


def is_comparable(value: object) -> bool:
    """Whether a value made again by the same statement can be told from another one."""
    return type(value).__eq__ is not object.__eq__ and _equal(value, value)


def _equal(a: object, b: object) -> bool:
    try:
        return type(a) is type(b) and bool(a == b)
    except Exception:  # of tensors and arrays equality is no single answer
        return False


def _codes(value: Any) -> Any:
    """What functions do, without where they were written; of a class its own functions and constants, by name."""
    if isinstance(value, type):
        own = {name: of for name, of in vars(value).items() if not name.startswith("_abc")}
        constants = {name: of for name, of in own.items() if not name.startswith("__") and is_literal(of)}
        return value.__name__, constants, {name: code for name, of in own.items() if (code := _codes(of)) is not None}
    for wrapped in ("__func__", "fget", "__wrapped__"):  # of a class or static method, a property, a decorator
        value = getattr(value, wrapped, value)
    return _bare(code) if isinstance(code := getattr(value, "__code__", None), CodeType) else None


def _bare(code: CodeType) -> list[Any]:
    """Instructions and constants. Calls of what the same text imports have instructions of their own: made equal."""
    of: list[Any] = [_bare(one) for one in code.co_consts if isinstance(one, CodeType)]
    for step in dis.get_instructions(code):
        if step.opname not in ("NOP", "PUSH_NULL"):
            is_target = step.opcode in (*dis.hasjrel, *dis.hasjabs) or isinstance(step.argval, CodeType)
            argument = "" if is_target else _NULL.sub("", step.argrepr)
            of.append(("LOAD_ATTR" if step.opname == "LOAD_METHOD" else step.opname, argument))
    return of
