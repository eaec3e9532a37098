"""Lines in which a generator talks about the parts of the transcript that it writes."""

from __future__ import annotations

import re

NUMBER = r"(?:\d+|one|two|three|four)"
ABOUT = r"[^\n]{0,120}\b(?:session|transcript|assessment)\b[^\n]{0,120}"
RESIDUE = re.compile(
    # A patient who hands over "part one of what I wrote" speaks of themselves.
    r"^[ \t]*(?![^\n]*\b(?:I|my|me|we|our|you)\b)(?:"
    rf"here(?:'s| is)(?: the)? part {NUMBER}(?: of {NUMBER})?(?:{ABOUT})?:"
    rf"|here(?:'s| is) the (?:first|second|third|fourth|next|final|last) part(?: of {ABOUT})?:"
    rf"|[\[(](?:continued in part|end of part|part) {NUMBER}(?: of {NUMBER})?[^\n\])]{{0,40}}[\])]"
    r")[ \t]*$\n?",
    re.IGNORECASE | re.MULTILINE,
)
"""A line such as "Here is part 2 of 4 for the CBT session:" or "[Continued in part 3]", left by a generator that wrote
in parts."""
