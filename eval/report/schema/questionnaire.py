"""What simulated patients answered, in a report: sub-scales by arm, their contrasts, and the answers of one session."""

from __future__ import annotations

from pydantic import Field

from cbtrain.eval.report.schema.estimates import ContrastRow
from cbtrain.eval.report.schema.fields import Number, NumberTable, Part, Rows, Text


class SubscaleRow(Part):
    """A sub-scale: what a high mean says, and the ends of its scale."""

    id: Text = ""
    text: Text = ""
    low: Number = Field(None, alias="min")
    high: Number = Field(None, alias="max")


class AnswersRow(Part):
    """The sessions of an arm: held without a failure, with a questionnaire that is filled in (``n``), and mean and SD
    of each sub-scale over those."""

    name: Text = ""
    asked: Number = None
    n: Number = None
    means: NumberTable = Field(default_factory=dict)
    sds: NumberTable = Field(default_factory=dict)


class SubscaleContrastRow(ContrastRow):
    """A planned difference in points of one sub-scale."""

    subscale: Text = ""


class QuestionnairePart(Part):
    """The questionnaire and what came of it. ``asked``: sessions that did not fail; ``filled_in``: of these."""

    name: Text = ""
    note: Text = ""
    asked: Number = None
    filled_in: Number = None
    subscales: Rows[SubscaleRow] = Field(default_factory=list)
    groups: Rows[AnswersRow] = Field(default_factory=list)
    contrasts: Rows[SubscaleContrastRow] = Field(default_factory=list)


class ReportAnswers(Part):
    """A patient's answers after one session; ``problem`` says why there are none."""

    status: Text = ""
    problem: Text = ""
    answers: NumberTable = Field(default_factory=dict)
    means: NumberTable = Field(default_factory=dict)
    own_words: Text = ""
