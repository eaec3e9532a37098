"""Documents of a few turns, made as training makes them."""

from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.config import TokensConfig
from cbtrain.tokens.document_builder import DocumentBuilder, units_of
from cbtrain.tokens.formats import choose_format
from cbtrain.transcripts.types import Course, Session


def builder_for(tokenizer, speaker="therapist", supervise=None, pack_tokens=100_000, positions=10**9, **tokens):
    config = TokensConfig(**tokens)
    renderer = ChatRenderer(tokenizer, choose_format(tokenizer, config.format, speaker))
    return DocumentBuilder(renderer, speaker, supervise or speaker, config, pack_tokens, positions)


def units_for(builder, sessions, system=""):
    """Units of one course; ``sessions`` are Session objects, or lists of turns numbered from 1."""
    made = [
        session if isinstance(session, Session) else Session("c", number, tuple(session))
        for number, session in enumerate(sessions, 1)
    ]
    return units_of(Course(made[0].course, tuple(made)), builder.config, [system or ""] * len(made))


def documents_for(tokenizer, *sessions, system="", **settings):
    """All documents of one course, in order."""
    builder = builder_for(tokenizer, **settings)
    return [document for unit in units_for(builder, sessions, system) for document in builder.build(unit).documents]


def stretches(document):
    """The supervised stretches of ids."""
    found, previous = [], False
    for token, now in zip(document.ids.tolist(), document.supervised.tolist(), strict=True):
        if now and not previous:
            found.append([])
        if now:
            found[-1].append(token)
        previous = now
    return found
