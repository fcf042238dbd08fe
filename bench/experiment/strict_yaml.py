"""One reader for all YAML: the scalars of YAML 1.2's core schema, and nothing that has two readings.

PyYAML's parser turns text into events; this module builds values from the events without recursion. PyYAML's own
constructor follows YAML 1.1 (010 is 8, 1:30 is 90, `no` is false), keeps the last of two equal keys, and recurses.
ruamel.yaml reads YAML 1.2 but builds dates and has no bounds, so it would need the same code around it.

Refused: duplicate keys, tags, several documents, aliases within their own anchor, numbers with a leading zero, and more
than DEEPEST levels, MOST values or LONGEST characters.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.events import AliasEvent, DocumentStartEvent, MappingStartEvent, ScalarEvent, SequenceStartEvent
from yaml.events import CollectionEndEvent as End

LONGEST = 200_000  # characters of a text
DEEPEST = 20  # levels of nesting
MOST = 20_000  # values
DIGITS = 100  # of a number

_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_DECIMAL = re.compile(r"[-+]?[0-9]+")
_OTHER_BASE = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INF_NAN = re.compile(r"[-+]?(\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def parse(text: str) -> Any:
    """The value of a YAML text; None for an empty one. Raises: ValueError in one line."""
    if len(text) > LONGEST:
        raise ValueError(f"{len(text):,} characters; at most {LONGEST:,} are read")
    try:
        return _build(yaml.parse(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ValueError(_told(error)) from None


def dump(value: Any) -> str:
    """YAML that `parse` reads as the same value: text that looks like a number is quoted."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """PyYAML quotes what YAML 1.1 reads as another type; this one also what YAML 1.2 does."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _tag, _form in (("float", _FLOAT), ("int", _OTHER_BASE)):
    _Dumper.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_form.pattern})\Z"), list("-+.0123456789")
    )


def scalar(text: str) -> Any:
    """A plain scalar of the core schema: null, boolean, number, or the text itself. Raises: ValueError."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _LEADING_ZERO.fullmatch(text):
        raise ValueError(
            f"'{text:.{DIGITS}}' has two readings, decimal and octal; write it without leading zeros, or 0o7"
        )
    is_int, is_other = _DECIMAL.fullmatch(text), _OTHER_BASE.fullmatch(text)
    if (is_int or is_other or _FLOAT.fullmatch(text)) and len(text) > DIGITS:
        raise ValueError(f"a number of {len(text):,} characters; at most {DIGITS} are read")
    if is_int:
        return int(text)
    if is_other:
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INF_NAN.fullmatch(text):
        return float(text.replace(".", ""))
    return text


@dataclass(frozen=True)
class _Done:
    """A finished value. size: of its parts, those of aliases counted again; height: levels of nesting."""

    value: Any
    size: int = 1
    height: int = 0


@dataclass
class _Open:
    """A list or mapping that is being filled. key: of a mapping, once it is read; anchor: its name, if it has one."""

    values: list[Any] | dict[str, Any]
    anchor: str | None = None
    key: str | None = None
    size: int = 1
    height: int = 1

    def add(self, part: _Done) -> None:
        if isinstance(self.values, list):
            self.values.append(part.value)
        else:
            assert self.key is not None
            self.values[self.key] = part.value
            self.key = None
        self.size += part.size
        self.height = max(self.height, part.height + 1)

    @property
    def awaits_key(self) -> bool:
        return isinstance(self.values, dict) and self.key is None


def _build(events: Iterator[Any]) -> Any:
    """Raises: ValueError, yaml.YAMLError."""
    root = _Open([])
    stack, anchors = [root], dict[str, _Done]()
    documents = 0
    for event in events:
        line = f" (line {event.start_mark.line + 1})"
        if getattr(event, "tag", None) is not None:
            raise ValueError(f"tags are not read; leave out {event.tag!r:.40}{line}")
        match event:
            case DocumentStartEvent():
                documents += 1
                if documents > 1:
                    raise ValueError(f"a second document begins; write one{line}")
                continue
            case SequenceStartEvent() | MappingStartEvent():
                if stack[-1].awaits_key:
                    raise ValueError(f"a list or mapping is no key{line}")
                stack.append(_Open([] if isinstance(event, SequenceStartEvent) else {}, event.anchor))
                part = None
            case ScalarEvent():
                part = _scalar(stack[-1], event, line)
                if part is not None and event.anchor:
                    anchors[event.anchor] = part
            case AliasEvent():
                if stack[-1].awaits_key or event.anchor not in anchors:
                    raise ValueError(f"alias '{event.anchor:.40}' stands for nothing here{line}")
                part = anchors[event.anchor]
            case End():
                done = stack.pop()
                part = _Done(done.values, done.size, done.height)
                if done.anchor:
                    anchors[done.anchor] = part
            case _:
                continue
        if part is not None:
            stack[-1].add(part)
        if len(stack) - 1 + (part.height if part else 0) > DEEPEST:
            raise ValueError(f"more than {DEEPEST} levels of lists and mappings{line}")
        if sum(level.size for level in stack) > MOST:
            raise ValueError(f"more than {MOST:,} values, those of aliases counted again{line}")
    assert isinstance(root.values, list)
    return root.values[0] if root.values else None


def _scalar(top: _Open, event: Any, line: str) -> _Done | None:
    """The value that a scalar is, or None where it is the next key. Keys are text as it is written."""
    text = event.value
    if _CONTROL.search(text):
        raise ValueError(f"a control character in a text{line}")
    if top.awaits_key:
        assert isinstance(top.values, dict)
        if text in top.values:
            raise ValueError(f"key '{text:.40}' stands twice{line}; keep one")
        top.key = text
        return None
    try:
        return _Done(scalar(text) if event.implicit[0] else text)
    except ValueError as error:
        raise ValueError(f"{error}{line}") from None


def _told(error: yaml.YAMLError) -> str:
    """What is wrong and where, without the excerpt of the text."""
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or type(error).__name__
    mark = getattr(error, "problem_mark", None)
    return f"{problem} (line {mark.line + 1})" if mark else str(problem)
