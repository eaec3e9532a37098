"""Marks in transcripts that nobody said: HTML, notes of a transcriber, lines that end a conversation.

Each pattern finds less than there may be: tags that HTML knows, notes with a word of a list, end lines of known form.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable

TAG = re.compile(r"</?([A-Za-z][A-Za-z0-9]{0,9})(?:[\s/][^<>]{0,600})?>|<!--[^<>]{0,600}-->")
TAGS = frozenset(
    "a abbr article aside b big blockquote body br button caption center cite code dd del details div dl dt em figure "
    "font footer form h1 h2 h3 h4 h5 h6 head header hr html i iframe img input ins kbd li link main mark meta nav ol p "
    "pre q s script section small span strike strong style sub summary sup svg table tbody td tfoot th thead title tr "
    "tt u ul video wbr".split()
)
"""Tags that HTML knows: ``<NAME>`` is none of them."""

BREAK = re.compile(r"<(?:br|/p|/div|/li|/tr|/h[1-6])\b[^<>]{0,200}>", re.IGNORECASE)
ENTITY = re.compile(r"&(?:[A-Za-z][A-Za-z0-9]{1,30}|#\d{1,7}|#[xX][0-9A-Fa-f]{1,6});")
BLANK_LINES = re.compile(r"\n[ \t]{0,80}\n(?:[ \t]{0,80}\n){1,20}")

BRACKETED = re.compile(
    r"\[[^\[\]\n]{1,60}\]|\([^()\n]{1,60}\)|（[^（）\n]{1,30}）|【[^【】\n]{1,30}】|(?<![*\w])\*[^*\n]{1,40}\*(?![*\w])"
)
"""What may be a note of a transcriber."""

TIME = re.compile(r"\d{1,2}(?::\d{2}){1,2}(?:[.,]\d{1,3})?")
NOTES = frozenset(
    "inaudible unintelligible indistinct crosstalk cross-talk overlapping laugh laughs laughing laughter chuckle "
    "chuckles chuckling giggles giggling sigh sighs sighing sob sobs sobbing cries crying weeps weeping sniffs "
    "sniffles sniffling cough coughs coughing throat exhales inhales pause pauses silence silent nod nods nodding "
    "shrugs shrugging smile smiles smiling gasps whispers whispering tearful tearfully trembling noise".split()
)
"""Words of which a note in English has one."""

NOTES_IN_HAN = re.compile("笑|哭|泣|流泪|叹气|沉默|停顿|点头|摇头|听不清|咳嗽|沈黙|ため息|聞き取れ")
SPOKEN = frozenset("i i'm i've me my we our you your".split())
"""Words that people say of themselves: ``(I sigh a lot)`` is speech."""

END = re.compile(
    r"(?:the )?end(?:ing)? of (?:the |this |our )?"
    r"(?:session|conversation|dialog(?:ue)?|transcript|recording|chat|interview|call)(?: \d{1,3})?"
    r"|(?:the )?(?:session|conversation|dialog(?:ue)?|transcript|recording|chat|interview|call)(?: \d{1,3})? "
    r"(?:has |is )?(?:ends|ended|over|closed|concluded|completed?|terminated)"
    r"|(?:对话|会话|咨询|通话|会談|面接)(?:结束|终了|終了)",
    re.IGNORECASE,
)
"""A line that says that the conversation is over, and nothing else, without what is around it."""

AROUND = " \t[]()<>（）【】*_#=~-.!。"
LONGEST_END = 60
"""Characters of a line that may be such a one."""

END_MARK = re.compile(
    r"[*_`]{0,3}(?:\[|<|-{2,4} ?|={2,4} ?)END(?:\]|>| ?-{2,4}| ?={2,4})[*_`]{0,3}[ \t]{0,20}$", re.MULTILINE
)
"""``[END]``, ``<END>`` or ``--- END ---`` at the end of a line."""


def markup_in(text: str) -> list[str]:
    """Return the HTML tags and entities in ``text``."""
    tags = [match.group() for match in TAG.finditer(text) if _is_html(match)] if "<" in text else []
    entities = ENTITY.findall(text) if "&" in text else []
    return tags + [entity for entity in entities if html.unescape(entity) != entity]


def without_markup(text: str) -> str:
    """Return ``text`` without HTML tags, a line break for each ``<br>`` and each end of a paragraph, entities as
    characters."""
    if "<" in text:
        text = TAG.sub(lambda tag: "" if _is_html(tag) else tag.group(), BREAK.sub("\n", text))
    if "&" in text:
        text = ENTITY.sub(lambda entity: html.unescape(entity.group()).replace("\xa0", " "), text)
    return BLANK_LINES.sub("\n\n", text).strip()


def notes_in(text: str) -> list[str]:
    """Return the notes of a transcriber in ``text``: ``[crosstalk]``, ``(laughs)``, ``[00:12:01]``."""
    return [match.group() for match in BRACKETED.finditer(text) if _is_note(match.group())] if _may(text) else []


def without_notes(text: str) -> str:
    """Return ``text`` without a transcriber's notes, and without the blanks that they leave."""
    if not _may(text):
        return text
    parts, position = [], 0
    for match in BRACKETED.finditer(text):
        if _is_note(match.group()):
            parts.append(text[position : match.start()])
            position = match.end()
    return _joined([*parts, text[position:]]).strip() if parts else text


def end_markers_in(text: str) -> list[str]:
    """Return the lines in ``text`` that end a conversation."""
    lines = [line.strip() for line in text.split("\n") if _is_end(line)]
    return lines + [match.group().strip() for match in END_MARK.finditer(text)]


def without_end_markers(text: str) -> str:
    """Return ``text`` without the lines that end a conversation."""
    return END_MARK.sub("", "\n".join(line for line in text.split("\n") if not _is_end(line))).strip()


STRIPPING: dict[str, tuple[Callable[[str], list[str]], Callable[[str], str]]] = {
    "markup": (markup_in, without_markup),
    "transcriber_note": (notes_in, without_notes),
    "end_marker": (end_markers_in, without_end_markers),
}
"""For each kind what finds it in a text, and what takes it out."""


def _is_html(tag: re.Match[str]) -> bool:
    return tag[1] is None or tag[1].lower() in TAGS


def _is_end(line: str) -> bool:
    return len(line) <= LONGEST_END and END.fullmatch(line.strip(AROUND)) is not None


def _may(text: str) -> bool:
    return any(bracket in text for bracket in "[(（【*")


def _is_note(bracketed: str) -> bool:
    inside = bracketed[1:-1].strip()
    if TIME.fullmatch(inside) and bracketed[0] == "[":
        return True
    if bracketed[0] in "（【" and len(inside) <= 12 and NOTES_IN_HAN.search(inside):
        return True
    words = [word.strip(".:;!…-") for word in inside.lower().replace("’", "'").split()]
    square = bracketed[0] in "[【"
    if len(words) > (6 if square else 4) or not SPOKEN.isdisjoint(words) or (not square and "," in inside):
        return False
    return not NOTES.isdisjoint(words if square else words[:2])


def _joined(parts: list[str]) -> str:
    """Return the parts of a text that notes stood between: one blank where there were two, none before a comma."""
    joined = parts[:1]
    for after in parts[1:]:
        before = joined[-1]
        if after[:1] and after[0] in ",.;:!?":
            joined[-1] = before.rstrip(" ")
        elif not before or before[-1] in " \n\t":
            after = after.lstrip(" ")
        joined.append(after)
    return "".join(joined)
