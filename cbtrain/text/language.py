"""Find the language of a text by its script and its function words; say ``unknown`` where that does not tell.

A script with one language of many speakers names it (Hangul: Korean). Of the languages of one script, the
one with by far the most function words counts. Short texts, mixed ones and languages without a list are ``unknown``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

UNKNOWN = "unknown"

NAMES = {
    "ar": "Arabic", "bn": "Bengali", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English",
    "es": "Spanish", "fa": "Persian", "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi", "hu": "Hungarian",
    "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ka": "Georgian", "km": "Khmer", "ko": "Korean", "lo": "Lao",
    "my": "Burmese", "nl": "Dutch", "no": "Norwegian", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian",
    "ru": "Russian", "sv": "Swedish", "ta": "Tamil", "th": "Thai", "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu",
    "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip
"""English names of languages, by their ISO 639-1 codes."""

SCRIPTS = {
    "latin": "A-Za-zÀ-ÖØ-öø-ɏḀ-ỿ",
    "cyrillic": "\u0400-\u04ff",
    "arabic": "\u0621-\u06d3",
    "ja": "\u3041-\u30ff",
    "zh": "\u3400-\u4dbf\u4e00-\u9fff",
    "ko": "\uac00-\ud7a3\u1100-\u11ff",
    "th": "\u0e01-\u0e4e",
    "lo": "\u0e81-\u0ecd",
    "km": "\u1780-\u17d3",
    "my": "\u1000-\u103f",
    "el": "\u0370-\u03ff",
    "he": "\u05d0-\u05ea",
    "hi": "\u0900-\u0963",
    "bn": "\u0980-\u09e3",
    "ta": "\u0b80-\u0bd7",
    "ka": "\u10d0-\u10fa",
}
"""Letters of a script; a code of two letters is the language that it is taken for."""

LETTERS = {name: re.compile(f"[{letters}]") for name, letters in SCRIPTS.items()}
WORD = re.compile(r"[^\W\d_]+")
FUNCTION_WORDS: dict[str, dict[str, frozenset[str]]] = {
    "latin": {
        "en": frozenset("i the and to of you that it is was for with this have my your what not they me just".split()),
        "de": frozenset("der die und das ich ist nicht sie es zu ein eine mit mir mich auf wie was aber haben".split()),
        "fr": frozenset("le la les et de je est pas que vous un une des en il elle ce pour mais qui".split()),
        "es": frozenset("el la los que y de no en es un una me por con para lo mi pero usted cómo".split()),
        "it": frozenset("il la che di e non è un una mi per con sono ho ma come gli del anche questo".split()),
        "pt": frozenset("o a que e de não eu um uma os me para com é do da em mas você como".split()),
        "nl": frozenset("de het een en ik is dat niet je van te in op met maar zijn was voor heb wat".split()),
        "sv": frozenset("och att det är jag en som på inte med för har du den av men ett om mig när".split()),
        "da": frozenset("og at det er jeg en som på ikke med for har du den af men et om mig når".split()),
        "no": frozenset("og at det er jeg en som på ikke med for har du den av men et om meg når".split()),
        "fi": frozenset("ja on ei että se hän olen minä mutta kun niin oli mitä minun sen kuin sitä ole".split()),
        "pl": frozenset("nie w się na że jest z jak mam też ja być co mi mnie ale tak po jestem czy".split()),
        "cs": frozenset("se je že na v jsem si ne jak mi tak ale jste mám když není bych také".split()),
        "hu": frozenset("a az és hogy nem is egy van de meg mint én ez azt volt csak mit már ha".split()),
        "ro": frozenset("și de la nu că să în un o mi este am cu pe mă ce dar pentru sunt ca".split()),
        "tr": frozenset("ve bir bu ben çok için de da ne ama gibi var mi daha o değil kadar bana beni".split()),
        "id": frozenset("yang dan saya itu tidak di ini untuk dengan aku apa ada dari bisa akan anda ke kamu".split()),
        "vi": frozenset("tôi là và của không có một cho được những bạn này đã với anh em cảm thấy".split()),
    },
    "cyrillic": {
        "ru": frozenset("и в не я что на с это как мне вы он но меня у так есть был ты бы".split()),
        "uk": frozenset("і в не я що на з це як мені ви він але мене у так є був ти та".split()),
    },
    "arabic": {
        "ar": frozenset("في من على أن إلى لا ما هذا أنا التي هل لم مع هو كان عن قد كل".split()),
        "fa": frozenset("و در به که از را این من است با برای می هم خود نیست شما تو چه".split()),
        "ur": frozenset("کے میں ہے کی اور سے کا کو نہیں یہ ہیں پر کہ آپ مجھے تھا".split()),
    },
}
"""Frequent words that languages of one script have; most of them are no words of the others."""

LONGEST = 20_000
"""Characters of a text that are looked at."""
FEWEST_WORDS, FEWEST_LETTERS = 20, 20
MAIN_SCRIPT = 0.6
FEWEST_SHARE, LEAD = 0.12, 1.3
"""A language has this share of function words at least, and this times as many as the next."""


def language_of(text: str) -> str:
    """Return the ISO 639-1 code of the language of ``text``, or ``unknown``."""
    text = text[:LONGEST]
    counts = Counter({name: len(letters.findall(text)) for name, letters in LETTERS.items()})
    # A character of Han says as much as a few letters.
    weights = Counter({name: 3 * count if name in ("zh", "ja") else count for name, count in counts.items()})
    (script, weight), *_ = weights.most_common(1)
    if script in ("zh", "ja"):
        weight = weights["zh"] + weights["ja"]
        script = "ja" if 10 * counts["ja"] > counts["zh"] else "zh"
    if weight < FEWEST_LETTERS or weight < MAIN_SCRIPT * weights.total():
        return UNKNOWN
    return _by_function_words(text, FUNCTION_WORDS[script]) if script in FUNCTION_WORDS else script


def language_of_all(texts: Iterable[str]) -> list[str]:
    """Return the languages of a tenth or more of the ``texts`` whose language is found, the most frequent first; none
    if it is found in none."""
    return frequent(map(language_of, texts))


def frequent(languages: Iterable[str]) -> list[str]:
    """Return those of ``languages`` that are known and make up a tenth or more of these, the most frequent first."""
    counts = Counter(languages)
    del counts[UNKNOWN]
    return [language for language, count in counts.most_common() if 10 * count >= counts.total()]


def language_name(code: str) -> str:
    """Return a language as messages name it: ``Chinese (zh)``."""
    return f"{NAMES[code]} ({code})" if code in NAMES else code


def _by_function_words(text: str, lists: dict[str, frozenset[str]]) -> str:
    words = Counter(WORD.findall(text.lower()))
    if words.total() < FEWEST_WORDS:
        return UNKNOWN
    shares = Counter(
        {code: sum(words[word] for word in function_words) / words.total() for code, function_words in lists.items()}
    )
    (code, share), (_, next_share) = shares.most_common(2)
    return code if share >= FEWEST_SHARE and share >= LEAD * next_share else UNKNOWN
