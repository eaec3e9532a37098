"""Templates of prompts that a user may write: Jinja in a sandbox, in which a name that is not known is an error."""

from __future__ import annotations

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from cbtrain.errors import UserError

ENVIRONMENT = SandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, autoescape=False)


def compiled(text: str, part: str, where: object, hint: str) -> Template:
    """Return the template ``text``, which is the ``part`` of the file ``where``. Raises UserError with ``hint`` if it
    is none."""
    try:
        return ENVIRONMENT.from_string(text)
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        at = f" in line {line} of `{part}`" if line else f" in `{part}`"
        raise UserError(f"no template{at} ({error})", where=where, hint=hint) from None


def without_gaps(text: str) -> str:
    """Return ``text`` without the empty lines that conditions leave behind."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.strip() or (lines and lines[-1]):
            lines.append(line.rstrip())
    return "\n".join(lines).strip()
