"""The judges of an evaluation: who rates by which instrument, how they are asked, and what is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from cbtrain.errors import UserError
from cbtrain.eval.config import EvaluationConfig
from cbtrain.eval.rating import cue_rater
from cbtrain.eval.rating.allocation import in_rotation
from cbtrain.eval.rating.config import CUE, LLM, JudgeConfig, JudgingConfig, NamedJudge
from cbtrain.eval.rating.csv_table import nearly_equal
from cbtrain.eval.rating.cue_rater import CUE_RATER, CUE_RATER_LABEL
from cbtrain.eval.rating.judge import Asking
from cbtrain.eval.rating.judge_prompt import JudgePrompt, load_judge_prompt
from cbtrain.eval.rating.judging import JudgeWork
from cbtrain.eval.rating.people import PERSON
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.eval.rating.rubric_files import load_rubric, short_name
from cbtrain.eval.rating.scores import Score
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.eval.trained_rater.rater import TrainedRater, load_rater
from cbtrain.files import exists, text_digest
from cbtrain.providers.config import ProviderConfig, ProvidersConfig
from cbtrain.providers.providers import recorded
from cbtrain.study.evaluation.problems import Problems
from cbtrain.study.evaluation.therapists import require_name

TRAINED = "trained"
"""The kind of a rater that `cbtrain judge train` has fitted."""


@dataclass(frozen=True)
class Judge:
    """A rater of sessions. ``instrument``: short name of its ``rubric``. ``api``, ``prompt`` and ``asked`` of an LLM
    judge; None for a rater on this machine, which is the cue rater if it is not ``trained``. ``beside``: its scores do
    not count in the result. ``named``: whether the settings name it; if not, it is the one that ``evaluation.judging``
    describes."""

    name: str
    kind: str
    instrument: str
    rubric: Rubric
    api: ProviderConfig | None = None
    prompt: JudgePrompt | None = None
    asked: JudgeConfig | None = None
    trained: TrainedRater | None = None
    beside: bool = False
    named: bool = False

    @property
    def role(self) -> str:
        """What it is called among the APIs of a run."""
        return f"judge {self.name}" if self.named else "judge"

    @property
    def label(self) -> str:
        """What is shown at its scores."""
        if self.api is None:
            return self.trained.label if self.trained else CUE_RATER_LABEL
        model = f"LLM judge {self.api.model}"
        return f"{self.name} ({model})" if self.named and self.name != self.api.model else model

    def rate(self, session: SimulatedSession) -> Score:
        """Return the rating of a rater on this machine."""
        score = self.trained.rate(session, self.rubric) if self.trained else cue_rater.rate(session, self.rubric)
        return replace(score, judge=self.name)

    @cached_property
    def asking(self) -> Asking:
        """How the LLM judge is asked."""
        assert self.prompt is not None
        assert self.asked is not None
        return Asking(self.name, self.rubric, self.prompt, self.asked)

    def work(self, sessions: Sequence[SimulatedSession]) -> JudgeWork:
        """Return what the LLM judge does with ``sessions``."""
        assert self.api is not None
        return JudgeWork(self.asking, self.api, sessions)

    @property
    def described(self) -> dict[str, Any]:
        """Return who it is and how it is asked, for a plan."""
        if self.trained is not None:
            return {"kind": TRAINED, "file": text_digest(self.trained.content.model_dump_json())}
        if self.api is None or self.asked is None or self.prompt is None:
            return {"kind": self.kind}
        asked = self.asked.model_dump(mode="json", exclude={"prompt"})
        own = {} if self.prompt.name == self.prompt.where else {"name": self.prompt.name}
        prompt = {**own, "version": self.prompt.version, "digest": self.prompt.digest}
        return {"kind": LLM, "api": self.api.identity(), **asked, "prompt": prompt}


@dataclass(frozen=True)
class Jury:
    """All ``judges`` of an evaluation, and whether each session is rated by one of them in ``rotation``."""

    judges: Sequence[Judge]
    rotation: bool = False

    @property
    def notes(self) -> list[str]:
        """What has to be known of raters that were trained."""
        trained = [(judge, judge.trained) for judge in self.judges if judge.trained]
        return [f"{judge.name}: {note}" for judge, rater in trained for note in rater.check(judge.rubric)]

    @property
    def first(self) -> Judge:
        """The first judge that counts: its instrument is the primary one."""
        return next((judge for judge in self.judges if not judge.beside), self.judges[0])

    @property
    def rubric(self) -> Rubric:
        """The primary instrument."""
        return self.first.rubric

    @property
    def instruments(self) -> dict[str, list[Judge]]:
        """The judges of each instrument, the primary one first."""
        found: dict[str, list[Judge]] = {self.first.instrument: []}
        for judge in self.judges:
            found.setdefault(judge.instrument, []).append(judge)
        return found

    @property
    def of_primary(self) -> list[Judge]:
        return self.instruments[self.first.instrument]

    @property
    def label(self) -> str:
        """What is shown at the scores that count, by the primary instrument."""
        return self.rater()["label"]

    def rater(self, panel: Sequence[str] = ()) -> dict[str, str]:
        """Return who rates by the primary instrument, as reports say it: those in the ``panel``, if any of them are."""
        planned = self.primary_of(self.first.instrument)
        judges = [judge for judge in self.of_primary if judge.name in planned]
        judges = [judge for judge in judges if judge.name in panel] or judges
        label = "; ".join(judge.label for judge in judges)
        if self.rotates(self.first.instrument):
            label += " (each session one of them, in rotation)"
        kind = judges[0].kind if len(judges) == 1 else "several"
        return {"judge": ", ".join(judge.name for judge in judges), "kind": kind, "label": label}

    @property
    def apis(self) -> list[Judge]:
        """The judges behind APIs."""
        return [judge for judge in self.judges if judge.api is not None]

    def primary_of(self, instrument: str) -> list[str]:
        """Return the names of the judges whose scores by ``instrument`` count: all, if all are beside."""
        judges = self.instruments[instrument]
        return [judge.name for judge in judges if not judge.beside] or [judge.name for judge in judges]

    def rotates(self, instrument: str) -> bool:
        """Return whether the judges by ``instrument`` take turns."""
        return self.rotation and sum(not judge.beside for judge in self.instruments[instrument]) > 1

    def shares(self, sessions: Sequence[SimulatedSession]) -> dict[str, Sequence[SimulatedSession]]:
        """Return the sessions of each judge, by its name."""
        shares: dict[str, Sequence[SimulatedSession]] = {judge.name: sessions for judge in self.judges}
        for instrument in self.instruments:
            if self.rotates(instrument):
                shares |= in_rotation(sessions, self.primary_of(instrument))
        return shares


def uses_llm_judge(judging: JudgingConfig, providers: ProvidersConfig) -> bool:
    """Return whether an LLM judge rates if none is named; ``auto`` looks for its key or, where a recording answers, for
    its ratings in that. Raises UserError if it is demanded without a key."""
    key = judging.provider.api_key_env
    if providers.replay:
        return judging.rater == LLM or (judging.rater == "auto" and recorded(providers, judging.provider))
    has_key = key is None or bool(os.environ.get(key))
    if judging.rater == LLM and not has_key:
        raise UserError("the LLM judge's API key is not set", where=key, hint=f"export {key}=… before the run.")
    return judging.rater == LLM or (judging.rater == "auto" and has_key)


def jury_of(settings: EvaluationConfig, providers: ProvidersConfig, *, to_ask: bool = True) -> Jury:
    """Return the judges that ``settings`` name, or the one that ``evaluation.judging`` describes. ``to_ask``: whether
    they will be asked, and need keys; if not, an LLM judge stands where ``auto`` would take the cue rater. Raises
    UserError, one for all that is wrong with them."""
    problems = Problems()
    if not settings.judges:
        with problems.collected():
            judge = _only(settings.judging, providers, to_ask)
        problems.refuse()
        return Jury([judge])
    judges = []
    for name, entry in settings.judges.items():
        with problems.collected(f"evaluation.judges.{name}"):
            judges.append(_named(name, entry, settings.judging, providers if to_ask else None))
    for check in (_check_names, _check_instruments, _check_twins, _check_counting):
        for problem in check(settings.judges, judges):
            problems.add(UserError(problem, where="evaluation.judges"))
    jury = Jury(judges, settings.allocation == "cyclic") if judges else None
    if jury and jury.rotation and not any(jury.rotates(instrument) for instrument in jury.instruments):
        what = "no two judges by one instrument could take turns"
        problems.add(UserError(what, where="evaluation.allocation", hint="Name another judge, or take `full`."))
    problems.refuse()
    assert jury is not None
    return jury


def _only(judging: JudgingConfig, providers: ProvidersConfig, to_ask: bool) -> Judge:
    rubric = load_rubric(judging.rubric)
    instrument = short_name(judging.rubric)
    if not (uses_llm_judge(judging, providers) if to_ask else judging.rater != CUE):
        cue_rater.check(rubric)
        return Judge(CUE_RATER, CUE, instrument, rubric)
    prompt = load_judge_prompt(judging.judge.prompt)
    prompt.check(rubric)
    api = judging.provider
    return Judge(api.model, LLM, instrument, rubric, api, prompt, judging.judge)


def _named(name: str, entry: NamedJudge, judging: JudgingConfig, providers: ProvidersConfig | None) -> Judge:
    """Return the judge called ``name``. ``providers``: None if it will not be asked."""
    require_name(name, "a judge")
    if name.startswith(PERSON.strip()):
        raise UserError(f"names with {PERSON.strip()!r} are those of people", hint="Give it another name.")
    word = entry.rubric or judging.rubric
    rubric, instrument = load_rubric(word), short_name(word)
    if entry.rater == CUE:
        cue_rater.check(rubric)
        return Judge(name, CUE, instrument, rubric, beside=entry.beside, named=True)
    if entry.rater != LLM:
        if not exists(entry.rater):
            hint = f"It is {LLM}, {CUE}, or a file that `cbtrain judge train` wrote."
            raise UserError(f"no rater {entry.rater!r}", hint=hint)
        trained = load_rater(entry.rater)
        trained.check(rubric)
        return Judge(name, TRAINED, instrument, rubric, trained=trained, beside=entry.beside, named=True)
    api = entry.provider or judging.provider
    if providers is not None:
        uses_llm_judge(JudgingConfig(rater=LLM, provider=api), providers)  # its key
    asked = entry.asked(judging)
    prompt = load_judge_prompt(asked.prompt)
    prompt.check(rubric)
    return Judge(name, LLM, instrument, rubric, api, prompt, asked, beside=entry.beside, named=True)


def _check_names(entries: Mapping[str, NamedJudge], judges: Sequence[Judge]) -> Iterable[str]:
    for group in nearly_equal(entries):
        yield f"{' and '.join(map(repr, group))} are nearly the same name: give one of them another"


def _check_instruments(entries: Mapping[str, NamedJudge], judges: Sequence[Judge]) -> Iterable[str]:
    """Yield instruments of the same short name that are not the same."""
    first_of: dict[str, Judge] = {}
    for judge in judges:
        first = first_of.setdefault(judge.instrument, judge)
        if first.rubric.digest != judge.rubric.digest:
            yield (
                f"the rubrics of {first.name!r} and {judge.name!r} are both called {judge.instrument!r}, and differ: "
                "rename one of the files"
            )


def _check_twins(entries: Mapping[str, NamedJudge], judges: Sequence[Judge]) -> Iterable[str]:
    """Yield judges that would give each other's ratings."""
    asked: dict[str, str] = {}
    for judge in judges:
        same = {**judge.described, "repeats": 0, "rubric": judge.rubric.digest}
        first = asked.setdefault(str(same), judge.name)
        if first != judge.name:
            yield (
                f"{first!r} and {judge.name!r} are the same rater, asked in the same way: take one of them with "
                "`repeats`, or change its model, prompt, rubric or temperature"
            )


def _check_counting(entries: Mapping[str, NamedJudge], judges: Sequence[Judge]) -> Iterable[str]:
    if entries and all(entry.beside for entry in entries.values()):
        yield "all of them are `beside`, so nothing would be the result"
