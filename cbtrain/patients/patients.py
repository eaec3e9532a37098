"""The patients of an evaluation: from a library or a file, those that are wanted, checked before anybody is asked."""

from __future__ import annotations

from cbtrain.errors import UserError
from cbtrain.files import expanded
from cbtrain.patients.case import Case
from cbtrain.patients.checking import check_cases
from cbtrain.patients.choose import choose, pick
from cbtrain.patients.config import PatientsConfig
from cbtrain.patients.faults import Faults, Say, unsaid
from cbtrain.patients.library import library
from cbtrain.patients.reading import read_cases


def patients_of(config: PatientsConfig, seed: int, say: Say = unsaid) -> list[Case]:
    """Return the patients that ``config`` names: all, those of ``only`` in its order, or ``count`` of them, spread over
    ``stratify`` and chosen by ``seed``; a larger count keeps those chosen before.

    ``say`` takes what is left out, guessed, or to be looked at. Raises UserError with everything that is wrong.
    """
    if (config.library is None) == (config.file is None):
        what = "neither a library nor a file" if config.library is None else "a library and a file"
        raise UserError(what, where="patients", hint="Name one of them: {library: depression}, or {file: PATH}.")
    if config.stratify and config.count is None:
        raise UserError("stratify without count", where="patients", hint="Say how many: count: 12.")
    cases = all_of(config, say)
    if config.only:
        cases = pick(cases, config.only)
    if config.count is not None:
        cases = choose(cases, config.count, config.stratify, seed)
    refuse_bad(cases, say)
    return cases


def all_of(config: PatientsConfig, say: Say = unsaid) -> list[Case]:
    """Return all patients of the library or file that ``config`` names. Raises UserError."""
    if config.library is not None:
        return library(config.library)
    assert config.file is not None
    return read_cases(expanded(config.file), config.map, say)


def refuse_bad(cases: list[Case], say: Say = unsaid) -> None:
    """Raise UserError with all errors of :func:`check_cases`; ``say`` takes its warnings."""
    checked, faults = check_cases(cases), Faults()
    for error in checked.errors:
        faults.add(UserError(error))
    faults.refuse()
    for warning in checked.warnings:
        say(warning)
