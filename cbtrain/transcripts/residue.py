"""Lines in which a generator talks about the parts of the transcript that it writes."""

from __future__ import annotations

import re

RESIDUE = re.compile(
    r"^[ \t]*here(?:'s| is)(?: the)? part (?:\d+|one|two|three|four)\b"
    r"[^\n]*(?:session|transcript|assessment)[^\n]*:[ \t]*$\n?",
    re.IGNORECASE | re.MULTILINE,
)
"""A line such as "Here is part 2 of 4 for the CBT session:", left by a generator that wrote in parts."""
