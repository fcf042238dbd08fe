"""The decorator by which a class in a plugin or a package makes itself known."""

import re
import sys
from typing import Any, TypeVar

from bench.api.errors import PluginError

NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
MARK = "__bench_registered__"

Class = TypeVar("Class", bound=type)


def register(cls: Class) -> Class:
    """Make a subclass of one of the public base classes known. Raises: PluginError where it breaks its interface."""
    if not isinstance(cls, type) or kind_of(cls) is None:
        raise PluginError(
            "@register needs a subclass of bench.Method, Net, DataSet, Instrument, Objective, Metric, Transform, "
            f"Executor or Listener, not {cls!r}"
        )
    if complaint := _complaint(cls):
        file = getattr(sys.modules[cls.__module__], "__file__", None) or cls.__module__  # of a notebook there is none
        raise PluginError(f"{file}: {cls.__name__} {complaint}")
    sys.modules[cls.__module__].__dict__.setdefault(MARK, []).append(cls)
    return cls


def kind_of(cls: type) -> str | None:
    """The shelf that it belongs on, as `methods`, by its base class. Torch is not imported for it."""
    bases = {(base.__module__, base.__qualname__) for base in cls.__mro__}
    return next((kind for kind, base in _BASES.items() if base in bases), None)


def name_of(cls: Any) -> str:
    return str(cls.info.name if hasattr(cls, "info") else cls.name)


_BASES = {
    "methods": ("bench.api.method", "Method"),
    "nets": ("bench.api.net", "Net"),
    "datasets": ("bench.api.dataset", "DataSet"),
    "instruments": ("bench.api.instrument", "Instrument"),
    "objectives": ("bench.api.objective", "Objective"),
    "metrics": ("bench.api.metric", "Metric"),
    "transforms": ("bench.api.transform", "Transform"),
    "executors": ("bench.executors.executor", "Executor"),
    "listeners": ("bench.api.listener", "Listener"),
}
_CARDS = {"methods": "MethodInfo", "datasets": "DataSetInfo"}
_SETTINGS = {"methods": "Config", "nets": "Settings", "executors": "Settings"}


def _complaint(cls: Any) -> str | None:
    kind = kind_of(cls)
    assert kind is not None
    if card := _CARDS.get(kind):
        if type(getattr(cls, "info", None)).__name__ != card:
            return f"lacks `info = {card}(...)`"
    elif not isinstance(getattr(cls, "name", None), str):
        return 'lacks `name = "..."`'
    if not NAME.fullmatch(name_of(cls)):
        return f"is named '{name_of(cls)}'; a name has lower-case letters, digits and hyphens only"
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        return f"does not implement {', '.join(missing)}"
    if settings := _SETTINGS.get(kind):
        from pydantic import BaseModel

        model = getattr(cls, settings, None)
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return f"has a {settings} that is not a pydantic model"
    return None
