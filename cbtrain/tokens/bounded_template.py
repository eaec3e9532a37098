"""Chat templates of others, rendered within bounds: neither a loop without end nor ten gigabytes of text.

A template is a program. ``transformers`` runs it in Jinja's sandbox, which keeps it from files and from Python, but not
from ``{% for %}`` in ``{% for %}`` or ``'x' * 10 ** 10``. Here the same template has a budget of work that grows with
the dialogue: each step of a loop, each call, each filter and each character that it makes takes from it. What one
operation could make is bounded before it runs. So a rendering ends whatever the template says, in any thread, without
a clock or another process.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache, wraps
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from cbtrain.errors import UserError

WORK, WORK_PER_CHARACTER = 5_000_000, 200
"""Units of work that a rendering has, and those that each character of its messages adds. Stock templates use fewer
than twenty a character."""

STEP, CALL, ENTRY = 10, 50, 3
"""Units of a step of a loop, of a call, of an entry of a list; a character that is made is one."""

PEAK = 256
"""A step costs one unit more for so many characters of the longest text there is: it may read all of it."""

WIDEST, DIGITS = 100_000, 4096
"""The largest number that may say how often or how wide something is, and the most bits of a product or power."""

FILTERS = frozenset(
    "abs attr batch capitalize center count d default dictsort e escape first float format groupby indent int items "
    "join last length list lower map max min reject rejectattr replace reverse round safe select selectattr slice sort "
    "string title tojson trim truncate unique upper wordcount".split()
)
"""Jinja's filters whose work is known in advance."""

_LEFT: ContextVar[list[int] | None] = ContextVar("_LEFT", default=None)
"""Units left and longest text so far, of the rendering in this thread."""


class TooMuchWork(UserError):
    """A template asks for more than its budget."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the chat template {what}", hint="Use the template that the model was published with.")


def render(template: str, messages: Sequence[Mapping[str, Any]], *, generate: bool, tokens: Mapping[str, Any]) -> str:
    """Lay out ``messages`` with the Jinja text ``template`` as ``transformers`` does; ``generate`` adds what comes
    before an answer, ``tokens`` are the tokenizer's special tokens by name.

    Raises TooMuchWork if the template needs more work than a chat can, and what Jinja raises on its faults.
    """
    lengths = [len(str(value)) for message in messages for value in message.values()]
    reset = _LEFT.set([WORK + WORK_PER_CHARACTER * sum(lengths), max(lengths, default=0)])
    try:
        variables = {"tools": None, "documents": None, "add_generation_prompt": generate, **tokens}
        return _compiled(template).render(messages=[dict(message) for message in messages], **variables)
    except (RecursionError, MemoryError):
        raise TooMuchWork("calls itself without end") from None
    finally:
        _LEFT.reset(reset)


def _charge(units: int, characters: int = 0) -> None:
    """Take ``units`` and the ``characters`` characters from what is left. Nothing while a template is compiled."""
    left = _LEFT.get()
    if left is None:
        return
    left[0] -= units + characters
    left[1] = max(left[1], characters)
    if left[0] < 0:
        raise TooMuchWork("takes far more steps than a chat needs")


def _charge_value(value: Any) -> Any:
    """Charge for ``value`` as if it were written as text, and return it: nested lists count as often as they occur."""
    waiting = [value]
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, Namespace):
            raise TooMuchWork("writes a namespace as text")
        if isinstance(entry, Mapping):
            waiting += [*entry.keys(), *entry.values()]
        elif isinstance(entry, (list, tuple, set, frozenset)):
            waiting += entry
        _charge(ENTRY, len(entry) if isinstance(entry, (str, bytes)) else 0)
    return value


def _require_width(*numbers: Any) -> None:
    for number in numbers:
        if isinstance(number, int) and abs(number) > WIDEST:
            raise TooMuchWork(f"asks for a width or count of {number}")


def _require_plain_format(text: str) -> None:
    if re.search(r"\d{6}|\*", text):
        raise TooMuchWork("formats a number with a width that no chat has")


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox of ``transformers`` with a price on everything."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        _charge(CALL)
        method = getattr(__obj, "__wrapped__", __obj)  # Jinja wraps `format`
        owner = getattr(method, "__self__", None)
        if isinstance(owner, str):
            _require_method(owner, method.__name__, args, kwargs)
        result = super().call(__context, __obj, *args, **kwargs)
        if not isinstance(result, (Namespace, Macro)):
            _charge_value(result)
        return result

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        numbers = isinstance(left, int) and isinstance(right, int)
        if operator == "*" and not numbers:
            for count, repeated in ((left, right), (right, left)):
                if isinstance(count, int) and isinstance(repeated, (str, bytes, list, tuple)):
                    _charge(0, max(count, 0) * max(len(repeated), 1))
        elif operator in ("*", "**") and numbers:
            bits = left.bit_length() * max(right, 1) if operator == "**" else left.bit_length() + right.bit_length()
            if bits > DIGITS:
                raise TooMuchWork("computes a number that no chat has")
        elif operator == "+" and isinstance(left, (str, list, tuple)) and isinstance(right, (str, list, tuple)):
            _charge(0, len(left) + len(right))
        elif operator == "%" and isinstance(left, str):
            _require_plain_format(left)
            _charge_value(right)
        result = super().call_binop(context, operator, left, right)
        return _charge_value(result) if isinstance(result, (str, list, tuple)) else result


def _require_method(text: str, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raise TooMuchWork if a method of ``text`` would make more than its arguments and ``text`` are long."""
    arguments = [*args, *kwargs.values()]
    _require_width(*arguments)
    if name in ("translate", "encode"):
        raise TooMuchWork(f"uses the method {name!r}")
    if name in ("format", "format_map"):
        _require_plain_format(text)
        for value in arguments:
            _charge_value(value)
    if name == "join":
        _charge(0, len(text) * sum(len(value) for value in arguments if isinstance(value, (list, tuple, str))))
    if name == "expandtabs":
        _charge(0, text.count("\t") * max([8, *(value for value in arguments if isinstance(value, int))]))
    if name == "replace" and len(arguments) > 1:
        _charge(0, _replaced(text, str(arguments[0]), str(arguments[1])))


def _replaced(text: str, old: str, new: str) -> int:
    return (text.count(old) if old else len(text) + 1) * len(new)


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the filter ``function`` with its work and the size of its result charged."""

    @wraps(function)  # with the marks by which Jinja knows filters that want the context
    def filtered(*args: Any, **kwargs: Any) -> Any:
        _charge(CALL)
        arguments = [value for value in args if not isinstance(value, (jinja2.Environment, Context, nodes.EvalContext))]
        _require_width(*(value for value in (*arguments[1:], *kwargs.values()) if name not in ("d", "default")))
        value = arguments[0] if arguments else None
        if isinstance(value, Iterator):
            kept = list(_steps(value, 0))
            args = tuple(kept if argument is value else argument for argument in args)
            value = kept
        if name in ("join", "string", "tojson", "format", "list"):
            _charge_value(value)
        if name == "join":
            separators = [entry for entry in (*arguments[1:], *kwargs.values()) if isinstance(entry, str)]
            _charge(0, max(map(len, separators), default=0) * (len(value) if isinstance(value, Sequence) else 1))
        if name == "format":
            _require_plain_format(str(value))
            _charge_value([*arguments[1:], *kwargs.values()])
        if name == "replace" and len(arguments) > 2:
            _charge(0, _replaced(str(value), str(arguments[1]), str(arguments[2])))
        if name in ("indent", "tojson"):
            width = next((entry for entry in (*arguments[1:], *kwargs.values()) if not isinstance(entry, bool)), 4)
            wide = len(width) if isinstance(width, str) else int(width or 0)
            lines = str(value).count("\n") + 1 if name == "indent" else 0
            _charge(0, wide * lines)
            if name == "tojson" and wide > 16:
                raise TooMuchWork("indents JSON wider than any chat does")
        result = function(*args, **kwargs)
        if isinstance(result, (str, list, tuple, dict)):
            _charge_value(result)
        return result

    return filtered


def _steps(values: Iterable[Any], text: int) -> Iterator[Any]:
    """Yield ``values``, each charged as a step of a loop whose body has ``text`` characters."""
    for value in values:
        left = _LEFT.get()
        _charge(STEP + (left[1] // PEAK if left else 0) + text)
        yield value


@jinja2.pass_context  # so that it is never computed while a template is compiled
def _loop(context: Context, values: Any, text: int) -> Any:
    if isinstance(values, jinja2.Undefined) or not isinstance(values, Iterable):
        return values  # Jinja says what is wrong
    return _Counted(values, text) if isinstance(values, Sequence) else _steps(values, text)


class _Counted:
    """A sequence whose steps are charged; its length stays known, for ``loop.length``."""

    def __init__(self, values: Sequence[Any], text: int) -> None:
        self.values, self.text = values, text

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Any]:
        return _steps(self.values, self.text)


@jinja2.pass_context
def _joined(context: Context, values: Sequence[Any]) -> str:
    return "".join(str(_charge_value(value)) for value in values)


@jinja2.pass_context
def _literal(context: Context, value: Any) -> Any:
    return _charge_value(value)


@jinja2.pass_context
def _written(context: Context, characters: int) -> str:
    _charge(0, characters)
    return ""


class _Pricing(NodeTransformer):
    """Puts a price on what Jinja has no hook for: loops, ``~``, lists, and text in bodies that are called."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _filter("_loop", node.iter, nodes.Const(_text_in(node)))
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._body(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        return self._body(node)

    def _body(self, node: Any) -> Any:
        self.generic_visit(node)
        node.body.insert(0, nodes.Output([_filter("_written", nodes.Const(_text_in(node)))]))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filter("_joined", nodes.Tuple(node.nodes, "load"))

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return _filter("_literal", node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return _filter("_literal", node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return _filter("_literal", node) if node.ctx == "load" else node


def _filter(name: str, value: Any, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(value, name, list(args), [], None, None)


def _text_in(node: nodes.Node) -> int:
    return sum(len(part.data) for part in node.find_all(nodes.TemplateData))


class _Generation(jinja2.ext.Extension):
    """``{% generation %}``, which marks answers for others; the text inside stays."""

    tags = {"generation"}  # noqa: RUF012 (as Jinja declares it)

    def parse(self, parser: Any) -> list[nodes.Node]:
        next(parser.stream)
        body: list[nodes.Node] = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return body


class _Namespace(Namespace):
    """A namespace without names of Python's own, as in ``transformers``."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        namespace, values = args[0], dict(*args[1:], **kwargs)
        for name in values:
            _require_public(name)
        Namespace.__init__(namespace, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _require_public(name)
        super().__setitem__(name, value)


def _require_public(name: Any) -> None:
    if str(name).startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace cannot hold {name!r}")


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@lru_cache(maxsize=1)
def _environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols], finalize=_charge_value
    )
    filters = {**environment.filters, "tojson": _to_json}
    environment.filters = {name: _bounded(name, function) for name, function in filters.items() if name in FILTERS}
    environment.filters |= {"_loop": _loop, "_joined": _joined, "_literal": _literal, "_written": _written}
    del environment.globals["lipsum"]
    environment.globals |= {"raise_exception": _raise, "strftime_now": lambda wanted: datetime.now().strftime(wanted)}
    environment.globals |= {"namespace": _Namespace, "dict": lambda *pairs, **named: dict(*pairs, **named)}
    return environment


@lru_cache(maxsize=64)
def _compiled(template: str) -> jinja2.Template:
    environment = _environment()
    tree = _Pricing().visit(environment.parse(template))
    code = environment.compile(tree, filename="<chat template>")
    return environment.template_class.from_code(environment, code, environment.make_globals(None))
