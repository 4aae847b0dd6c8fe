"""One TOML file to `Settings`: every mistake at once, each with its line; and settings back to TOML."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import BaseModel, ValidationError
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT, Comment, Item, Table, Whitespace

from deblurd.errors import ConfigError, NoInputError
from deblurd.settings import Settings

Loc = tuple[str | int, ...]

_BLANK = {"microscope": {"config_file": "MMConfig_demo.cfg"}}
"""Settings that have no default and must be there all the same: what the default text says."""


def load(path: Path) -> Settings:
    """The settings of a TOML file; its relative paths start at the folder of the file.

    Raises NoInputError where there is no file, ConfigError with one line for each mistake.
    """
    document = _parse(path)
    try:
        # as JSON, whose strict rules fit TOML: no number from a string, but a path from one
        settings = Settings.model_validate_json(json.dumps(document.unwrap(), default=str), strict=True)
    except ValidationError as err:
        where = lines(document)
        faults = sorted((_line(fault["loc"], where), _sentence(fault)) for fault in err.errors())
        raise ConfigError("\n".join(f"{path}:{line}: {sentence}" for line, sentence in faults)) from err
    return _anchored(settings, path.parent)


def default_text() -> str:
    """A TOML file with every setting, its meaning and its limits. What can be left out stands behind a `#`."""
    out = [
        "# deblurd, for research use only. Remove the # before a setting to change it;",
        "# what is not set has the value that stands here. `deblurd config check` looks it over.",
    ]
    for name, field in Settings.model_fields.items():
        model = _model(field.annotation)
        out += ["", f"# {model.__doc__}", f"[{name}]"]
        properties = model.model_json_schema()["properties"]
        for key, setting in model.model_fields.items():
            rule = "; ".join(filter(None, (setting.description, allowed(properties[key]))))
            given = _BLANK.get(name, {}).get(key)
            value = given if given is not None else setting.default
            absent = ", not set" if value is None else ""
            shown = _toml(_example(properties[key]) if value is None else value)
            out += [f"# {rule}{absent}", f"{'' if given is not None else '#'}{key} = {shown}"]
    return "\n".join(out) + "\n"


def schema() -> dict[str, Any]:
    """JSON Schema of the file, for editors."""
    return Settings.model_json_schema()


def effective_text(settings: Settings) -> str:
    """The settings as TOML, defaults included; loading it gives equal settings."""
    return tomlkit.dumps(settings.model_dump(mode="json", exclude_none=True))


def allowed(prop: Mapping[str, Any]) -> str:
    """What a JSON-schema property admits, in words; "" where it admits anything of its kind."""
    if "anyOf" in prop:
        return next(filter(None, (allowed(each) for each in prop["anyOf"] if each.get("type") != "null")), "")
    if "enum" in prop:
        return " or ".join(map(_toml, prop["enum"]))
    if prop.get("type") == "array" and "prefixItems" in prop:
        items = prop["prefixItems"]
        return f"[{', '.join(allowed(each) for each in items)}]"
    kind = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "a text"}
    limits = []
    for key, word in (
        ("minimum", "at least"),
        ("exclusiveMinimum", "above"),
        ("maximum", "at most"),
        ("exclusiveMaximum", "below"),
        ("pattern", "like"),
    ):
        if key in prop:
            limits.append(f"{word} {prop[key]}".removesuffix(".0"))
    noun = "a path" if prop.get("format") == "path" else kind.get(str(prop.get("type")), "")
    return " ".join(filter(None, (noun, " and ".join(limits))))


# --- reading ---


def _parse(path: Path) -> tomlkit.TOMLDocument:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as err:
        raise NoInputError(
            f"there is no configuration {path}: write one with `deblurd config init {path}`"
        ) from err
    except UnicodeDecodeError as err:
        line = err.object[: err.start].count(b"\n") + 1
        # Windows editors call UTF-16 "Unicode"
        what = "UTF-16" if err.object[:2] in (b"\xff\xfe", b"\xfe\xff") else "not UTF-8"
        raise ConfigError(f"{path}:{line}: this is {what}: save the file as UTF-8") from err
    except OSError as err:
        what = "a folder" if path.is_dir() else f"not readable ({err.strerror})"
        raise ConfigError(f"{path} is {what}: give the path of a TOML file") from err
    try:
        return tomlkit.parse(text)
    except (TOMLKitError, ValueError) as err:
        line, reason = _syntax(text, err)
        rows = text.splitlines()
        path_like = "\\" in "".join(rows[line - 1 : line])
        cure = "write paths with / or in single quotes" if path_like else "correct that line"
        raise ConfigError(f"{path}:{line}: this is not TOML ({reason}): {cure}") from err
    except RecursionError as err:
        raise ConfigError(f"{path}:1: the brackets are nested too deep: write the file anew") from err


def _syntax(text: str, err: Exception) -> tuple[int, str]:
    """Line and reason; the standard library's reader always knows the line, tomlkit mostly."""
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as other:
        if found := re.fullmatch(r"(.*) \(at line (\d+), column \d+\)", str(other), re.DOTALL):
            return int(found[2]), found[1][:1].lower() + found[1][1:]
    except (ValueError, RecursionError):
        pass
    return getattr(err, "line", 1), str(err).split(" at line ")[0]


def _anchored(settings: Settings, folder: Path) -> Settings:
    def beside(path: Path | None) -> Path | None:
        return path if path is None else folder / path.expanduser()

    microscope, simulator, replay = settings.microscope, settings.simulator, settings.replay
    config_file = beside(microscope.config_file)
    if config_file is not None and not config_file.is_file():
        # it may come with the device adapters; the microscope looks there
        config_file = microscope.config_file
    model = settings.deblur.model
    if "/" in model or "\\" in model:
        model = str(folder / model)
    return settings.model_copy(
        update={
            "microscope": microscope.model_copy(
                update={"config_file": config_file, "adapter_path": beside(microscope.adapter_path)}
            ),
            "simulator": simulator and simulator.model_copy(update={"slide": beside(simulator.slide)}),
            "replay": replay and replay.model_copy(update={"path": beside(replay.path)}),
            "scan": settings.scan.model_copy(update={"plan": beside(settings.scan.plan)}),
            "deblur": settings.deblur.model_copy(update={"model": model}),
            "mosaic": settings.mosaic.model_copy(update={"output": beside(settings.mosaic.output)}),
            "slide": settings.slide.model_copy(update={"label_image": beside(settings.slide.label_image)}),
            "serve": settings.serve.model_copy(update={"token_file": beside(settings.serve.token_file)}),
        }
    )


# --- where a mistake stands ---


def lines(document: tomlkit.TOMLDocument) -> dict[Loc, int]:
    """The line of every key and table, by its path."""
    return dict(_walk(document, (), _Counter()))


class _Counter:
    """The line that is being rendered."""

    def __init__(self) -> None:
        self.line = 1

    def add(self, text: str) -> None:
        self.line += text.count("\n")


def _walk(container: Any, loc: Loc, at: _Counter) -> Iterator[tuple[Loc, int]]:
    """Every key of a container with its line: tomlkit renders a file exactly as it was, so the newlines that come before
    an item say where it stood."""
    for key, item in container.body:
        if key is None:
            at.add(item.as_string() if isinstance(item, (Comment, Whitespace)) else "")
            continue
        inner = (*loc, key.key)
        if isinstance(item, AoT):
            yield inner, at.line
            for index, table in enumerate(item.body):
                yield from _table(table, (*inner, index), at)
        elif isinstance(item, Table):
            yield from _table(item, inner, at, headed=not key.is_dotted())
        else:
            at.add(item.trivia.indent)
            yield inner, at.line
            at.add(_rendered(item))


def _table(table: Table, loc: Loc, at: _Counter, headed: bool = True) -> Iterator[tuple[Loc, int]]:
    headed = headed and not table.is_super_table()
    if headed:
        at.add(table.trivia.indent)
    yield loc, at.line
    if headed:
        at.add(table.trivia.comment + table.trivia.trail)
    yield from _walk(table.value, loc, at)


def _rendered(item: Item) -> str:
    return item.as_string() + item.trivia.comment + item.trivia.trail


def _line(loc: Loc, where: Mapping[Loc, int]) -> int:
    """Of the key, else of the table where it should be, else the first."""
    while loc:
        if loc in where:
            return where[loc]
        loc = loc[:-1]
    return 1


# --- what a mistake is ---


def _sentence(fault: Mapping[str, Any]) -> str:
    loc, kind = fault["loc"], fault["type"]
    keys = [part for part in loc if isinstance(part, str)][:2]
    name = ".".join(keys)
    siblings = _siblings(keys[:-1])
    if kind == "extra_forbidden":
        return f"{name}: there is no such setting{_hint(keys, siblings)}"
    if kind == "missing":
        return f"{name}: this is missing; see `deblurd config init`"
    if kind == "model_type":
        return f"{name}: this is a table, [{name}] (got {_shown(fault['input'])})"
    if kind == "value_error":
        return f"{name}: {fault['ctx']['error']}"
    message = fault["msg"][:1].lower() + fault["msg"][1:]
    rule = allowed(siblings.get(keys[-1], {})) if keys else ""
    return f"{name}: {message} (got {_shown(fault['input'])})" + (f"; allowed: {rule}" if rule else "")


def _siblings(path: list[str]) -> dict[str, Any]:
    """The JSON-schema properties of a section, {} where there is no such section."""
    if not path:
        return dict(Settings.model_json_schema()["properties"])
    field = Settings.model_fields.get(path[0])
    return {} if field is None else dict(_model(field.annotation).model_json_schema()["properties"])


def _hint(keys: list[str], siblings: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(keys[-1], siblings, n=1)
    if near:
        return f'; did you mean "{near[0]}"?'
    homes = [name for name in Settings.model_fields if keys[-1] in _siblings([name])]
    if homes:
        return f'; did you mean "{keys[-1]}" of [{homes[0]}]?'
    return f"; allowed: {', '.join(siblings)}" if siblings else ""


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


# --- models as text ---


def _model(annotation: Any) -> type[BaseModel]:
    """The model of a field, optional or not."""
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next(each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel))


def _toml(value: Any) -> str:
    return tomlkit.item(value.as_posix() if isinstance(value, Path) else value).as_string()


def _example(prop: Mapping[str, Any]) -> Any:
    """Some value that a property admits, to show its form."""
    if "anyOf" in prop:
        return _example(prop["anyOf"][0])
    if "enum" in prop:
        return prop["enum"][0]
    if prop.get("type") == "array":
        items = prop.get("prefixItems") or [prop["items"]] * prop.get("minItems", 1)
        return [_example(each) for each in items]
    if prop.get("type") == "boolean":
        return False
    if prop.get("type") == "number":
        return 1.0 if "exclusiveMinimum" in prop else 0.0
    if prop.get("type") == "string":
        if prop.get("pattern", "").startswith("^http"):
            return "http://127.0.0.1:9000/"
        return "path/to/it" if prop.get("format") == "path" else "name"
    return 1
