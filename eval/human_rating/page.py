"""The web page of a form: one file, with style, script and sessions inlined."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cbtrain import NOTICE
from cbtrain.eval.human_rating.csv_form import CONTENT_NOTICE, instructions
from cbtrain.eval.human_rating.form import FORM_SCHEMA, RATINGS_SCHEMA, UNRATABLE, Form
from cbtrain.files import script_json

FOLDER = Path(__file__).parent


def render_form(form: Form) -> str:
    """Return an HTML page that opens from disk, fetches nothing, and shows transcripts as text only."""
    environment = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined)
    script = "".join((FOLDER / name).read_text(encoding="utf-8") for name in ("ratings.js", "page.js"))
    return environment.get_template("page.html").render(
        form=form,
        notice=NOTICE,
        content_notice=CONTENT_NOTICE,
        instructions=instructions(form.rubric),
        style=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=Markup(script_json(form_data(form))),
    )


def form_data(form: Form) -> dict[str, Any]:
    """Return the data for the page's script; it contains nothing that only the key may hold."""
    rubric = form.rubric
    return {
        "schema": FORM_SCHEMA,
        "ratingsSchema": RATINGS_SCHEMA,
        "unratable": UNRATABLE,
        "form": form.id,
        "minimum": rubric.minimum,
        "maximum": rubric.maximum,
        "domains": [
            {
                "id": domain.id,
                "name": domain.name,
                "description": domain.description,
                "anchors": [[point, text] for point, text in sorted(domain.anchors.items())],
            }
            for domain in rubric.domains
        ],
        "sessions": [
            {"code": session.code, "turns": [{"role": role, "text": text} for role, text in session.turns]}
            for session in form.sessions
        ],
    }
