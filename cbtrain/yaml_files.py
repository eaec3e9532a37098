"""Read YAML that somebody else may have written: bounded work, no key twice, one clear line where it is malformed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml

from cbtrain.errors import UserError

LONGEST = 10_000_000
"""Characters of a YAML text."""
MOST_VALUES = 100_000
"""Values once aliases are written out: nine lines of aliases of aliases can stand for billions."""


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
        place = where if line is None else f"{where}:{line + 1}"
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise UserError(f"malformed YAML ({problem})", where=place, hint="Correct this line.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read ({error})", where=where, hint="Name a readable YAML file.") from None
    except (ValueError, RecursionError) as error:  # such as the 45th of a month, or a thousand brackets
        raise UserError(f"malformed YAML ({error})", where=where, hint="Quote or correct the value.") from None


def _content(text: str, where: object) -> Any:
    loader = _UniqueKeys(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _values(node, {}) > MOST_VALUES:
            problem = f"its aliases (*name) stand for more than {MOST_VALUES:,} values"
            raise UserError(problem, where=where, hint="Write the values out.")
        return _unshared(loader.construct_document(node))
    finally:
        loader.dispose()


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """The number of values that ``node`` stands for; ``known`` holds those of nodes counted before."""
    if id(node) not in known:
        known[id(node)] = MOST_VALUES + 1  # what holds itself has no end
        inner = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = [part for item in inner for part in (item if isinstance(item, tuple) else (item,))]
        known[id(node)] = 1 + sum(_values(part, known) for part in parts)
    return known[id(node)]


def _unshared(value: Any) -> Any:
    """A copy in which nothing stands twice: what aliases share would change together."""
    if isinstance(value, dict):
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key may come once: of two, one would be dropped silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} comes twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)
