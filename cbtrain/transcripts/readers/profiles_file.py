"""``profiles.jsonl`` beside the sessions of any JSON format."""

from __future__ import annotations

from pathlib import Path

from cbtrain.errors import UserError
from cbtrain.transcripts.profile import PROFILE_SCHEMA, Profile, parse_profile
from cbtrain.transcripts.readers.options import ReadOptions
from cbtrain.transcripts.source import read_records

PROFILES = ("profiles.jsonl", "profiles.jsonl.gz")


def read_profiles(folder: Path, options: ReadOptions) -> dict[str, Profile]:
    """Profiles by course, none where ``folder`` is a file or has none. A second one for a course is a fault."""
    profiles: dict[str, Profile] = {}
    for file in (folder / name for name in PROFILES if folder.is_dir() and (folder / name).exists()):
        for where, content in read_records(file, options.on_bad):
            try:
                schema = content.pop("schema", None)
                if schema != PROFILE_SCHEMA:
                    hint = f'Each line is an object with "schema": "{PROFILE_SCHEMA}".'
                    raise UserError(f"schema {schema!r} is not {PROFILE_SCHEMA!r}", where=where, hint=hint)
                profile = parse_profile(content, where)
                if profile.course in profiles:
                    problem = f"course {profile.course!r} has a profile already"
                    raise UserError(problem, where=where, hint="Remove one of them.")
                profiles[profile.course] = profile
            except UserError as error:
                options.on_bad(error)
    return profiles
