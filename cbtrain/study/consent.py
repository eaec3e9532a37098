"""Nothing of an imported corpus leaves this machine unless the user says so.

Profiles are sent to whoever plays the patients, and simulated sessions, in which patients speak as their profiles say
and a therapist as its training transcripts do, to a judge. The embedded corpus is fictional and free.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from cbtrain.errors import UserError
from cbtrain.providers.config import ProvidersConfig
from cbtrain.transcripts.config import TranscriptsConfig
from cbtrain.transcripts.reading import SAMPLE, SAMPLES


def require_consent(corpus: str, what: str, base_url: str, allowed: bool) -> None:
    """Raise UserError if ``what`` of ``corpus`` would be sent to another machine and ``allowed`` is not set."""
    if allowed or str(corpus) in SAMPLES or is_local(base_url):
        return
    raise UserError(
        f"this would send {what} to {base_url}",
        where=corpus,
        hint="If you may share them with that service, say --allow-upload (with make: ARGS=--allow-upload).",
    )


def imported_part(corpus: TranscriptsConfig) -> str:
    """Return the first of the corpus's files that is imported; ``sample`` if none is."""
    paths = [path for path in (corpus.path, corpus.validation, corpus.test) if path is not None]
    return next((path for path in paths if path not in SAMPLES), SAMPLE)


def stays_here(providers: ProvidersConfig) -> bool:
    """Return whether a recording on this machine answers in place of all APIs."""
    return providers.replay is not None


def is_local(base_url: str) -> bool:
    """Return whether ``base_url`` is this machine by its own name for itself."""
    host = urlsplit(base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
