"""A settings file as plain values with the line of each, and the words for what is wrong with it.

bytes ─ text_of ─▶ text ─ compose ─▶ Document(data, lines) ─ validated(model) ─▶ settings, or errors with file, line and key
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from inspector.records import ConfigError, ConfigErrors

LARGEST_FILE_BYTES = 1 << 20
DEEPEST = 32
MOST_ERRORS = 100
MOST_VALUES = 50_000
LARGEST_NUMBER = 1 << 53
"""Up to here every whole number is the same in JSON, wherever it is read."""

Loc: TypeAlias = tuple[str | int, ...]
"""Where a value stands: ("cameras", 2, "source", "exposure_us")."""

S = TypeVar("S", bound=BaseModel)


@dataclass(slots=True)
class Document:
    """A file as plain values, the line of each of them, and what is wrong with it so far.

    `faulty` says where a value is known to be wrong already: one mistake gives one error. `overrides` names the variable of the
    environment that a value comes from.
    """

    file: str
    data: Any
    lines: dict[Loc, int]
    errors: list[ConfigError] = field(default_factory=list)
    faulty: set[Loc] = field(default_factory=set)
    overrides: dict[Loc, str] = field(default_factory=dict)

    def error(self, code: str, text: str, loc: Loc) -> ConfigError:
        """The error of the value at `loc`, with the line of the nearest that stands in the file; it takes one line itself."""
        text = _one_line(text)
        for n in range(len(loc), -1, -1):
            if loc[:n] in self.overrides:
                return ConfigError("E_ENV", text, key=self.overrides[loc[:n]])
            if loc[:n] in self.lines:
                return ConfigError(code, text, file=self.file, line=self.lines[loc[:n]], key=spelt(loc) or None)
        return ConfigError(code, text, file=self.file or None, key=spelt(loc) or None)

    def about(self, error: ConfigError, loc: Loc, *, keyed: bool = False) -> ConfigError:
        """A refusal as one of the setting at `loc`, or `keyed` of the one below that its key names. Another file that it names is told."""
        if isinstance(error, ConfigErrors):
            return ConfigErrors([self.about(each, loc, keyed=keyed) for each in error.errors])
        if error.file and error.file == self.file:
            return error
        said = ConfigError(error.code, error.text, file=error.file, line=error.line).said
        return self.error(error.code, said, (*loc, *error.key.split(".")) if keyed and error.key else loc)

    def refuse(self, code: str, text: str, loc: Loc) -> None:
        """Note that the value at `loc` is wrong, unless it is known to be."""
        if not any(loc[:n] in self.faulty for n in range(len(loc) + 1)):
            self.note(self.error(code, text, loc))
            self.faulty.add(loc)

    def note(self, error: ConfigError) -> None:
        """Keep an error. Raises all with the hundredth: a file that is wrong throughout is not read to its end."""
        self.errors.append(error)
        if len(self.errors) >= MOST_ERRORS:
            raise ConfigErrors(
                [*self.in_order(), ConfigError("E_CFG_SIZE", f"more than {MOST_ERRORS} errors; not read any further", file=self.file)]
            )

    def in_order(self) -> list[ConfigError]:
        """The errors in the order of the file; those of the environment come last."""
        return sorted(self.errors, key=lambda e: (e.line is None, e.line or 0))

    def validated(self, model: type[S], loc: Loc, place: Any) -> S | None:
        """The model that the values at `loc` make (without `kind`, where that is not the model's own), or None and errors noted."""
        raw = value_at(self.data, *loc)
        if isinstance(raw, dict) and "kind" not in model.model_fields:
            raw = {key: value for key, value in raw.items() if key != "kind"}
        try:
            # Strict JSON knows lists, text and numbers only: a tuple, a path and a set are made from them, and nothing else is converted.
            return model.model_validate_json(json.dumps(raw), context=place)
        except ValidationError as error:
            for where, code, text in self._explained(error, model, loc):
                self.refuse(code, text, where)
            return None

    def _explained(self, error: ValidationError, model: type[BaseModel], loc: Loc) -> Iterator[tuple[Loc, str, str]]:
        """(where, code, text) of each mistake; the alternatives of a union that one value misses are one mistake."""
        mistakes: dict[Loc, list[ErrorDetails]] = {}
        for detail in error.errors(include_url=False):
            where = (*loc, *detail["loc"])
            if detail["type"] != "missing":
                while where not in self.lines and len(where) > len(loc) and value_at(self.data, *where) is None:
                    where = where[:-1]
            mistakes.setdefault(where, []).append(detail)
        for where, details in mistakes.items():
            shape: Any = model
            for step in where[len(loc) : -1]:
                shape = _below(shape, step)
            yield where, *_explain(details, str(where[-1]) if where else "", _fields(shape))


def text_of(path: Path) -> str:
    """What the file says. UTF-8, a byte order mark is no harm; E_CFG_OPEN, _SIZE, _EMPTY, _ENCODING."""

    def refusal(code: str, text: str, line: int | None = None) -> ConfigErrors:
        return ConfigErrors([ConfigError(code, text, file=str(path), line=line)])

    try:
        if path.exists() and not path.is_file():
            raise refusal("E_CFG_OPEN", "a folder" if path.is_dir() else "not a plain file")
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise refusal("E_CFG_OPEN", f"{said} (as user {os.geteuid()})") from error
    if len(data) > LARGEST_FILE_BYTES:
        raise refusal("E_CFG_SIZE", f"more than {LARGEST_FILE_BYTES} bytes")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise refusal("E_CFG_ENCODING", "UTF-16; allowed: UTF-8")
    if (at := data.find(b"\0")) >= 0:
        raise refusal("E_CFG_ENCODING", f"a NUL byte at byte {at}; allowed: UTF-8 text", data.count(b"\n", 0, at) + 1)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise refusal("E_CFG_ENCODING", f"byte 0x{data[error.start]:02x} at byte {error.start}; allowed: UTF-8", line) from error
    if not text.strip():
        raise refusal("E_CFG_EMPTY", "nothing in it")
    return text


def compose(file: str, text: str) -> Document:
    """The one document in `text`. What stops the reading (syntax, depth) raises `ConfigErrors`; the rest is noted in the document."""
    document = Document(file, None, {(): 1})
    events = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))

    def stop(code: str, said: str, line: int) -> ConfigErrors:
        document.errors.append(ConfigError(code, said, file=file, line=line))
        return ConfigErrors(document.in_order())

    def node(event: Any, loc: Loc) -> Any:
        line = _line(event)
        document.lines.setdefault(loc, line)
        if len(loc) > DEEPEST:
            raise stop("E_CFG_DEPTH", f"more than {DEEPEST} levels", line)
        if len(document.lines) > MOST_VALUES:
            raise stop("E_CFG_SIZE", f"more than {MOST_VALUES} values", line)
        if isinstance(event, yaml.AliasEvent):
            raise stop("E_CFG_ALIAS", f"*{event.anchor}: aliases are not allowed; write the value out", line)
        if getattr(event, "tag", None) is not None:
            document.refuse("E_CFG_TAG", f"{event.tag.replace('tag:yaml.org,2002:', '!!')}: tags are not allowed", loc)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(following := next(events), yaml.SequenceEndEvent):
                items.append(node(following, (*loc, len(items))))
            return items
        if isinstance(event, yaml.MappingStartEvent):
            return mapping(loc)
        if event.implicit[0]:  # a plain scalar; quoted ones and blocks are text
            try:
                return _plain(event.value)
            except ConfigError as error:
                document.refuse(error.code, error.text, loc)
        return event.value

    def mapping(loc: Loc) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            line = _line(event)
            if not isinstance(event, yaml.ScalarEvent):
                raise stop("E_CFG_SYNTAX", "a key is plain text", line)
            key, where = event.value, (*loc, event.value)
            if key in found:
                text = f"{spelt(where)}: stands here and in line {document.lines[where]}"
                document.note(ConfigError("E_CFG_DUP", text, file=file, line=line))
                node(next(events), (*loc, f"{key} (again)"))
                continue
            document.lines[where] = line
            found[key] = node(next(events), where)
        return found

    try:
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if document.data is not None:
                    raise stop("E_CFG_SYNTAX", "a second document begins; allowed: one", _line(event))
                document.data = node(next(events), ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(filter(None, (error.context, error.problem)))
        if mark and "\t" in "".join(text.split("\n")[mark.line : mark.line + 1]):
            said += "; there is a tab in this line: indent with spaces"
        raise stop("E_CFG_SYNTAX", f"column {mark.column + 1}: {said}" if mark else said, mark.line + 1 if mark else 1) from error
    except yaml.YAMLError as error:
        raise stop("E_CFG_ENCODING", str(error).splitlines()[0], 1) from error
    if document.data is None:
        raise stop("E_CFG_EMPTY", "nothing in it", 1)
    return document


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _plain(text: str) -> Any:
    """The value of a plain scalar: YAML 1.2's core schema, and `ConfigError` for what readers disagree about or no number can be."""
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return text.lower() == "true"
    if re.fullmatch(r"(?i)yes|no|on|off|y|n", text):
        truth = "true" if text.lower() in ("yes", "on", "y") else "false"
        raise ConfigError("E_CFG_TYPE", f'{text}: some read {truth} here, some text; for text quote it: "{text}", else write {truth}')
    if re.fullmatch(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?", text):
        raise ConfigError("E_CFG_TYPE", f'{text}: some read a number to base 60 here; expected a string: quote it: "{text}"')
    if re.fullmatch(r"[-+]?(0[0-9_]+|0[box][0-9a-fA-F_]+|[0-9][0-9_]*_[0-9_]*)(\.[0-9_]*)?", text):
        said = f'{text}: readers disagree about this number; for text quote it: "{text}", else write plain decimal digits'
        raise ConfigError("E_CFG_TYPE", said)
    if re.fullmatch(r"-0+(\.0*)?([eE][-+]?[0-9]+)?", text):
        raise ConfigError("E_CFG_NUMBER", f"{text}: write 0")
    if re.fullmatch(r"[-+]?[0-9]+", text):
        if len(text) > 30 or abs(int(text)) > LARGEST_NUMBER:
            raise ConfigError("E_CFG_RANGE", f"{text[:40]}; allowed: a whole number within ±{LARGEST_NUMBER}, or text in quotes")
        return int(text)
    if re.fullmatch(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", text):
        number = float(text)
    elif re.fullmatch(r"(?i)[-+]?\.inf|\.nan", text):
        number = float(text.replace(".", ""))
    else:
        return text
    if number - number != 0:
        raise ConfigError("E_CFG_NUMBER", f"{text}: expected a finite number")
    return number


def override(document: Document, environment: Mapping[str, str]) -> None:
    """Puts what `INSPECTOR__SECTION__KEY` says in its place; E_ENV where there is none."""
    for name in sorted(n for n in environment if n.startswith("INSPECTOR__")):
        *sections, key = name.removeprefix("INSPECTOR__").lower().split("__")
        target = document.data
        for section in sections:
            target = target.setdefault(section, {}) if isinstance(target, dict) else None
        if not isinstance(target, dict):
            document.note(ConfigError("E_ENV", f"nothing can be set at {'.'.join(sections)}", key=name))
            continue
        loc = (*sections, key)
        document.overrides[loc] = name
        try:
            target[key] = _plain(environment[name])
        except ConfigError as error:
            document.refuse(error.code, error.text, loc)


# --- words -------------------------------------------------------------------------------------------------------------


def _explain(details: list[ErrorDetails], key: str, known: tuple[str, ...]) -> tuple[str, str]:
    """Code and text of one mistake: value seen, what is allowed, the nearest known."""
    first = details[0]
    kind, seen, context = first["type"], first["input"], first.get("ctx", {})
    if kind.startswith("E_"):
        return kind, first["msg"]
    if kind == "extra_forbidden":
        return "E_CFG_UNKNOWN", f"{key} is not known here{nearest(key, known)}; known: {', '.join(known)}"
    if kind == "missing":
        return "E_CFG_MISSING", "must be given"
    if kind == "string_pattern_mismatch":
        return "E_CFG_NAME", f"{_seen(seen)}; allowed: {context['pattern']}"
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"])
        return "E_CFG_RANGE", f"{_seen(seen)}{nearest(str(seen), choices)}; allowed: {context['expected'].replace(chr(39), '')}"
    if kind == "value_error":
        return "E_CFG_RANGE", first["msg"].removeprefix("Value error, ")
    if bound := next((b for b in ("gt", "ge", "lt", "le", "multiple_of") if b in context), None):
        sign = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤", "multiple_of": "a multiple of"}[bound]
        return "E_CFG_RANGE", f"{_seen(seen)}; allowed: {sign} {context[bound]:.12g}{_unit(key)}"
    if "actual_length" in context:
        sign, length = ("at least", "min_length") if "min_length" in context else ("at most", "max_length")
        return "E_CFG_RANGE", f"{context['actual_length']} entries; allowed: {sign} {context[length]}"
    expected = " or ".join(dict.fromkeys(_expected(d) for d in details))
    if any(d["type"] in ("float_type", "int_type", "finite_number") for d in details):
        code = "E_CFG_NUMBER" if isinstance(seen, (str, float)) else "E_CFG_TYPE"
        return code, f"{_seen(seen)}; expected {expected}{_unit(key)}, without quotes or unit"
    if kind == "string_type" and isinstance(seen, (bool, int, float)):
        return "E_CFG_TYPE", f'{_seen(seen)}; expected a string: quote it: "{_seen(seen)}"'
    return "E_CFG_TYPE", f"{_seen(seen)}; expected {expected}"


def _expected(detail: ErrorDetails) -> str:
    bounds = detail.get("ctx", {})
    for key, sign in (("max_length", "most"), ("min_length", "least")):
        if key in bounds:
            return f"a list of at {sign} {bounds[key]}"
    return _EXPECTED.get(detail["type"], detail["msg"])


_EXPECTED = {
    "string_type": "a string",
    "path_type": "a path",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a finite number",
    "finite_number": "a finite number",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
    "none_required": "null",
}


def _unit(key: str) -> str:
    found = re.search(r"(?:^|_)((?:[a-z]+_per_)?(?:ns|us|ms|mm_s|s|min|h|days|hz|mm2|mm|px|deg|rad|counts|ratio|mib))$", key)
    return f" ({found[1].replace('_per_', '/').replace('mm_s', 'mm/s')})" if found else ""


def _seen(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, ensure_ascii=False)
    return "nothing" if value is None else text if len(text) <= 60 else text[:57] + "…"


def nearest(name: str, known: Any) -> str:
    """`; did you mean x?` where one of the known names is near, else nothing."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {found[0]}?" if found else ""


def spelt(loc: Loc) -> str:
    """A place as people write it: `cameras[2].source.exposure_us`."""
    return _one_line("".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc).removeprefix("."))


def _one_line(text: str) -> str:
    """The text with what is no printable character spelt out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def value_at(data: Any, *loc: str | int, default: Any = None) -> Any:
    """The value at `loc` of raw data, `default` where there is none."""
    for step in loc:
        if not isinstance(data, dict | list):
            return default
        here: Any = data
        try:
            data = here[step]
        except (KeyError, IndexError, TypeError):
            return default
    return data


def mapping_of(value: Any) -> dict[str, Any]:
    """The value where it is a mapping, else an empty one: wrong types have their own error."""
    return value if isinstance(value, dict) else {}


def list_of(value: Any) -> list[Any]:
    """The value where it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def _below(shape: Any, step: str | int) -> Any:
    """The type that stands at `step` of a type: a model's field, a list's item, a mapping's value, whichever of a union has it."""
    if isinstance(shape, type) and issubclass(shape, BaseModel):
        return shape.model_fields[step].annotation if step in shape.model_fields else None
    inner = get_args(shape)
    if get_origin(shape) is dict:
        return inner[1]
    if get_origin(shape) in (list, tuple):
        return inner[0]
    return next((found for arg in inner if (found := _below(arg, step)) is not None), None)


def _fields(shape: Any) -> tuple[str, ...]:
    """The keys that a type allows."""
    if isinstance(shape, type) and issubclass(shape, BaseModel):
        return tuple(shape.model_fields)
    return tuple(name for arg in get_args(shape) for name in _fields(arg))
