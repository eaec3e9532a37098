"""What a person who chats must know: this is not care, and where people help."""

from __future__ import annotations

TITLE = "Research software, not care"

NOTICE = (
    "A language model plays a therapist here. It is not a therapist, and this is not therapy or care. What it says can "
    "be wrong or harmful. No person reads along who could help you."
)

CRISIS_TITLE = "People who help"

CRISIS = """\
In danger or in a crisis, talk to a person now:
• your local emergency number: 112 (Europe and many other countries), 911 (US, Canada), 999 (UK)
• a crisis line: 988 (US, Canada), Samaritans 116 123 (UK, Ireland)
• crisis lines of other countries: findahelpline.com"""

CRISIS_LINE = "In danger or in a crisis, talk to a person now: /crisis shows how."

LEAVING = "This was research software, not care. People who help: your emergency number, or findahelpline.com."
