"""The web page of a form: one file, with style, script and sessions inlined."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from cbtrain import NOTICE
from cbtrain.eval.human_rating.form import FORM_SCHEMA, RATINGS_SCHEMA, UNRATABLE, BlindSession, Form, Opinion
from cbtrain.eval.human_rating.instructions import CONTENT_NOTICE, instructions
from cbtrain.files import script_json

FOLDER = Path(__file__).parent


def render_form(form: Form) -> str:
    """Return an HTML page that opens from disk, fetches nothing, and shows transcripts as text only."""
    environment = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined)
    script = "".join((FOLDER / name).read_text(encoding="utf-8") for name in ("ratings.js", "training.js", "page.js"))
    return environment.get_template("page.html").render(
        form=form,
        notice=NOTICE,
        content_notice=CONTENT_NOTICE,
        instructions=instructions(form),
        between=next((point for point in form.rubric.points if isinstance(point, float)), None),
        style=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=Markup(script_json(form_data(form))),
    )


def form_data(form: Form) -> dict[str, Any]:
    """Return the data for the page's script. Of the blind sessions it contains nothing that only the key may hold; of
    training sessions it has the agreed scores."""
    rubric = form.rubric
    data: dict[str, Any] = {
        "schema": FORM_SCHEMA,
        "ratingsSchema": RATINGS_SCHEMA,
        "unratable": UNRATABLE,
        "form": form.id,
        "minimum": rubric.minimum,
        "maximum": rubric.maximum,
        "points": list(rubric.points),
        "domains": [
            {
                "id": domain.id,
                "name": domain.name,
                "description": domain.description,
                "subscale": domain.subscale,
                "anchors": [[point, text] for point, text in sorted(domain.anchors.items())],
            }
            for domain in rubric.domains
        ],
        "sessions": [_session(session) for session in form.sessions],
    }
    if form.training:
        data["training"] = [_session(session) for session in form.training]
    return data


def _session(session: BlindSession) -> dict[str, Any]:
    data: dict[str, Any] = {
        "code": session.code,
        "turns": [{"role": role, "text": text} for role, text in session.turns],
    }
    if session.domains:
        data["domains"] = session.domains
    if session.given:
        data["given"] = {domain: [_opinion(one) for one in given] for domain, given in session.given.items()}
    return data | ({"note": session.note} if session.note else {})


def _opinion(opinion: Opinion) -> dict[str, Any]:
    score = UNRATABLE if opinion.score is None else opinion.score
    return {"score": score, "turns": [index + 1 for index in opinion.evidence], "reason": opinion.reason}
