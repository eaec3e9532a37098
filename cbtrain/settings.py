"""Settings as they are read: YAML that somebody else may have written, older names of settings, and what pydantic finds
wrong, in plain words.

YAML is read in bounded work; a key that comes twice, or malformed text, is one clear line. Numbers are read as people
mean them: YAML 1.1's octal ``0100000`` (32768) and sexagesimal ``1:30:00`` (5400) are texts, which a setting that is a
number reads in tens or refuses. ``yes``, ``no``, ``on`` and ``off`` stay true and false, as in older files.

A setting that was renamed keeps its older names in pydantic's ``validation_alias``, the name of the field first. They
are read everywhere: in files, in ``key=value``, in old run folders and checkpoints. Only the field's name is written.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import zip_longest
from typing import Any, Literal, cast, get_args, get_origin

import yaml
from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic.fields import FieldInfo

from cbtrain.errors import UserError

LONGEST = 10_000_000
"""Characters of a YAML text."""
MOST_VALUES = 100_000
"""Values, also once aliases are written out: nine lines of aliases of aliases can stand for billions."""

NUMBERS = {
    "tag:yaml.org,2002:int": re.compile(r"(?:[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*))\Z"),
    "tag:yaml.org,2002:float": re.compile(
        r"(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
    ),
}
"""YAML 1.1's patterns without those that begin with a 0 and are octal, and without those in base 60."""


class SettingsConflict(ValueError):
    """Settings that are valid one by one, but not together. A validator of a section raises it; ``keys`` are the
    settings concerned, as seen from that section. If one of them is to be named before the problem, it is ``at``."""

    def __init__(self, problem: str, *keys: str, at: str = "") -> None:
        self.keys, self.at, self.problem = keys, at, problem
        super().__init__(f"{at}: {problem}" if at else problem)


DEEPEST = 1_000
"""Sections and lists inside one another: the time to read them grows with the square of their depth."""


def renamed(name: str, *older: str) -> AliasChoices:
    """Return the ``validation_alias`` of the field ``name``, which was called ``older`` before."""
    return AliasChoices(name, *older)


ANY_NAME = "NAME"
"""In the place of a name that a user gives to a section, where keys are listed."""


class _AnyName(dict[str, FieldInfo]):
    """Fields of a section whose keys are names of a user's own: every name is a field of one kind."""

    def __init__(self, entry: type[BaseModel]) -> None:
        super().__init__({ANY_NAME: FieldInfo(annotation=entry)})

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> FieldInfo:
        return self[ANY_NAME]

    def get(self, name: str, default: Any = None) -> FieldInfo:
        return self[name]


@cache
def _named_sections(entry: type[BaseModel]) -> type[BaseModel]:
    """Return what stands for the config class of a field that is a ``dict`` of ``entry`` by name."""
    text = f"Sections by names of your own. {entry.__doc__ or ''}"
    return cast(
        "type[BaseModel]", type(f"Named{entry.__name__}", (), {"__doc__": text, "model_fields": _AnyName(entry)})
    )


def section_of(annotation: Any) -> type[BaseModel] | None:
    """Return the config class of a field, also if it is optional, a list, or a ``dict`` of sections by name; None if
    the field is not a section."""
    if get_origin(annotation) is dict:
        entry = section_of(get_args(annotation)[1])
        return _named_sections(entry) if entry else None
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def older_names(section: type[BaseModel]) -> dict[str, str]:
    """Return the older names of the settings of ``section``, each with the name of its field."""
    return {
        older: name
        for name, field in section.model_fields.items()
        if isinstance(field.validation_alias, AliasChoices)
        for older in field.validation_alias.choices
        if isinstance(older, str) and older != name
    }


def current_key(key: str, model: type[BaseModel]) -> str:
    """Return the dotted ``key`` with the current name of each part; an unknown part stays as it is."""
    section: type[BaseModel] | None = model
    parts = []
    for part in key.split("."):
        if section and not part.isdecimal():  # the place of an entry in a list
            part = older_names(section).get(part, part)
            field = section.model_fields.get(part)
            section = section_of(field.annotation) if field else None
        parts.append(part)
    return ".".join(parts)


def with_current_names(
    settings: Mapping[str, Any], model: type[BaseModel], where: object, at: str = ""
) -> dict[str, Any]:
    """Return ``settings`` of ``model`` (its section ``at``) with the current name of each.

    Raises UserError, with ``where`` as its place, if a setting is given by two names with different values.
    """
    current: dict[str, Any] = {}
    written: dict[str, str] = {}
    names = older_names(model)
    for key, value in settings.items():
        name = names.get(key, key)
        field = model.model_fields.get(name)
        section = section_of(field.annotation) if field else None
        value = _inside(value, section, where, f"{at}{name}.") if section else value
        if name in current and current[name] != value:
            raise two_names(f"{at}{written[name]}", f"{at}{key}", f"{at}{name}", where)
        current[name], written[name] = value, key
    return current


def with_current_defaults(settings: Mapping[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Return ``settings`` of ``model``, as an earlier version wrote them (JSON, current names), with today's defaults
    for settings that were added since.

    What ``model`` no longer has, or no longer accepts, stays as it was written.
    """
    valid = copy.deepcopy(dict(settings))
    while True:
        try:
            return _filled(settings, model.model_validate(valid).model_dump(mode="json"))
        except ValidationError as error:
            if not any(_remove(valid, fault["loc"]) for fault in error.errors()):  # one fault a round
                return dict(settings)  # they do not fit together


def _filled(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    filled = dict(defaults)
    for key, value in settings.items():
        default = defaults.get(key)
        filled[key] = _filled(value, default) if isinstance(value, dict) and isinstance(default, dict) else value
    return filled


def _remove(settings: dict[str, Any], key: Sequence[str | int]) -> bool:
    """Remove the innermost setting on the way to ``key``. Return whether there was one."""
    for part, following in zip_longest(key, key[1:]):
        if part not in settings:
            return False
        inner = settings[part]
        if not isinstance(inner, dict) or following not in inner:
            del settings[part]
            return True
        settings = inner
    return False


MISSING: Any = ...
"""In place of a value in :func:`differences`: only the other mapping has the key."""


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return the keys on which two nested mappings differ, those inside others with dots, each with both values."""
    different = []
    for key in {**before, **after}:
        old, new = before.get(key, MISSING), after.get(key, MISSING)
        if isinstance(old, dict) and isinstance(new, dict):
            different += [
                (f"{key}.{inner}", old_value, new_value) for inner, old_value, new_value in differences(old, new)
            ]
        elif old != new:
            different.append((key, old, new))
    return different


def changed_settings(written: Mapping[str, Any], config: BaseModel, where: object) -> list[tuple[str, Any, Any]]:
    """Return the settings in which ``config`` differs from those that an interrupted run has ``written``: dotted key,
    old and new value, None if there is none. Settings that were added since have today's defaults in both.

    Raises UserError, with ``where`` as its place, as :func:`with_current_names`.
    """
    model = type(config)
    before = with_current_defaults(with_current_names(written, model, where), model)
    changes = [
        (key, None if old is MISSING else old, None if new is MISSING else new)
        for key, old, new in differences(before, config.model_dump(mode="json"))
    ]
    return [(key, old, new) for key, old, new in changes if old != new]


def two_names(first: str, second: str, current: str, where: object) -> UserError:
    """Return the error for one setting that is given as ``first`` and as ``second``, with different values."""
    hint = f"They are one setting. Give it once, as {current}."
    return UserError(f"{first} and {second} have different values", where=where, hint=hint)


def _inside(value: Any, section: type[BaseModel], where: object, at: str) -> Any:
    """``value`` with current names, if it is a section or a list of them."""
    if isinstance(value, dict):
        return with_current_names(value, section, where, at)
    if isinstance(value, list):
        return [_inside(entry, section, where, f"{at}{index}.") for index, entry in enumerate(value)]
    return value


def refuse_booleans(values: Mapping[str, Any], model: type[BaseModel], where: object) -> None:
    """Raise UserError, with ``where`` as its place, on the first of ``values`` of ``model`` that is true or false where
    a number is wanted: pydantic reads them as 1 and 0."""
    for key, value in _boolean_numbers(values, model):
        raise UserError(f"{key}: must be a number", where=where, hint=f"Got {value!r}.")


def _boolean_numbers(values: Mapping[str, Any], section: type[BaseModel], at: str = "") -> Iterator[tuple[str, bool]]:
    for key, value in values.items():
        field = section.model_fields.get(str(key))
        if field is None:
            continue
        inner, path = section_of(field.annotation), f"{at}{key}"
        if inner is None:
            yield from ((path, found) for found in _booleans(value, field.annotation))
        elif isinstance(value, dict):
            yield from _boolean_numbers(value, inner, f"{path}.")
        elif isinstance(value, list):
            for place, entry in enumerate(value):
                if isinstance(entry, dict):
                    yield from _boolean_numbers(entry, inner, f"{path}.{place}.")


def _booleans(value: Any, annotation: Any) -> Iterator[bool]:
    """Yield what is true or false in ``value`` if ``annotation`` takes numbers there, and neither of them."""
    kinds = get_args(annotation) if get_origin(annotation) not in (None, list, dict, Literal) else (annotation,)
    if isinstance(value, bool):
        plain = [kind for kind in kinds if get_origin(kind) is None]
        choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
        takes_bool = bool in plain or any(isinstance(choice, bool) for choice in choices)
        if not takes_bool and ({int, float} & {*plain, *map(type, choices)}):
            yield value
    for kind in kinds:
        if isinstance(value, list) and get_origin(kind) is list:
            yield from (found for entry in value for found in _booleans(entry, get_args(kind)[0]))
        elif isinstance(value, dict) and get_origin(kind) is dict:
            yield from (found for entry in value.values() for found in _booleans(entry, get_args(kind)[1]))


def parse_yaml(read: Callable[[], str], where: object) -> Any:
    """Return the content of the YAML text that ``read`` returns, each alias as a copy of its own.

    Raises UserError, with ``where`` as its place and the line where it is known, if the text cannot be read or is
    malformed, names a key twice, is longer than ``LONGEST`` or stands for more than ``MOST_VALUES`` values.
    """
    try:
        text = read()
        if len(text) > LONGEST:
            hint = "Name a file of settings."
            raise UserError(f"{len(text):,} characters, more than any settings have", where=where, hint=hint)
        return _content(text, where)
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        line_or_file = where if line is None else f"{where}:{line + 1}"
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise UserError(f"malformed YAML ({problem})", where=line_or_file, hint="Correct this line.") from None
    except (OSError, UnicodeError) as error:
        raise UserError(f"cannot be read ({error})", where=where, hint="Name a readable YAML file.") from None
    except (ValueError, RecursionError) as error:  # such as the 45th of a month, or a thousand brackets
        problem = "nested too deep" if isinstance(error, RecursionError) else error
        raise UserError(f"malformed YAML ({problem})", where=where, hint="Quote or correct the value.") from None


def _content(text: str, where: object) -> Any:
    if problem := _beyond_bounds(text):
        raise UserError(problem, where=where, hint="Name a file of settings.")
    loader = _UniqueKeys(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _values(node, {}) > MOST_VALUES:
            problem = f"its aliases (*name) stand for more than {MOST_VALUES:,} values"
            raise UserError(problem, where=where, hint="Write the values out.")
        try:
            return _unshared(loader.construct_document(node))
        except (LookupError, AttributeError, TypeError) as error:  # a tag that its value does not fit: `!!bool maybe`
            raise ValueError(f"a value does not fit its tag: {error}") from None
    finally:
        loader.dispose()


def _beyond_bounds(text: str) -> str | None:
    """Return what ``text`` has more of than any settings: values, aliases not written out, or sections in sections.

    Reads no further than that, and builds nothing: to build a value takes as long as to read twenty of them.
    """
    if len(text) <= MOST_VALUES:  # each value has a character
        return None
    values = depth = 0
    try:
        # libyaml reads ten times faster; PyYAML may be there without it.
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            values += isinstance(event, yaml.NodeEvent)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if values > MOST_VALUES:
                return f"more than {MOST_VALUES:,} values, more than any settings have"
            if depth > DEEPEST:
                return f"more than {DEEPEST:,} sections in sections, more than any settings have"
    except yaml.YAMLError:  # said, with its line, by the one that builds
        pass
    return None


def _values(node: yaml.Node, counted: dict[int, int]) -> int:
    """The number of values that ``node`` stands for; ``counted`` holds those of nodes that were counted before."""
    if id(node) not in counted:
        counted[id(node)] = MOST_VALUES + 1  # what holds itself has no end
        inner = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = [part for item in inner for part in (item if isinstance(item, tuple) else (item,))]
        counted[id(node)] = 1 + sum(_values(part, counted) for part in parts)
    return counted[id(node)]


def _unshared(value: Any) -> Any:
    """A copy in which nothing stands twice: what aliases share would change together."""
    if isinstance(value, dict):
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key may come once: of two, one would be dropped silently. Numbers in tens, in hexadecimal and in
    binary; what no setting can be (bytes, sets) has no tag."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):  # refused below: no key of ours is a list or a mapping
                continue
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            name = self.construct_object(key)
            if name in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} comes twice", problem_mark=key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


_UniqueKeys.yaml_constructors = {
    tag: construct
    for tag, construct in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] not in ("binary", "omap", "pairs", "set")
}
_UniqueKeys.yaml_implicit_resolvers = {
    first: [(tag, NUMBERS.get(tag, pattern)) for tag, pattern in resolvers]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
