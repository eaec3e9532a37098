"""English wordings that features count in the therapist's turns. Own lists: written for this, taken from no instrument.

A list finds words, not skill: "what is the evidence" counts whether or not it was a good moment to ask.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

Part = Literal["whole", "opening", "closing"]


STRAIGHT = str.maketrans("’‘´`", "''''")


def plain(text: str) -> str:
    """Return ``text`` in lower case with straight apostrophes."""
    return text.translate(STRAIGHT).lower()


class Wording(NamedTuple):
    """What ``pattern`` stands for, and the part of the session in which it is looked for (``opening``: the first third,
    ``closing``: the last)."""

    what: str
    pattern: re.Pattern[str]
    part: Part = "whole"


def _any_of(words: str) -> re.Pattern[str]:
    """Return a pattern of whole words, for text of :func:`plain`. ``words``: patterns between `` | ``."""
    return re.compile(rf"\b(?:{'|'.join(' '.join(words.split()).split(' | '))})\b")


AGENDA = _any_of(
    r"""
    agenda | plan for (?:today|this session) | focus on today | work on today | priorit(?:y|ies|ize) |
    (?:talk|start) (?:about )?(?:with )?today | on your mind today | anything you(?:'d| would) like to (?:add|cover) |
    like to (?:focus|work|discuss|talk|cover|start)
    """
)
HOMEWORK = _any_of(
    r"""
    homework | assignment | between (?:now and|our|this|the) | (?:over|during) the (?:next|coming) week |
    this (?:coming )?week | before (?:our|the|we) (?:next|meet) | (?:until|by) (?:our )?next (?:session|time|week) |
    practi[cs]e (?:this|that|it|at home) | try (?:this|that|it) (?:out )?(?:this|at home|every|each) | each day |
    every (?:day|evening|night|morning) | write (?:it |them |this |that )?down | keep (?:a )?(?:log|track|record)
    """
)
REVIEW = _any_of(
    r"""
    last (?:session|week|time) | previous session | since we (?:last )?(?:met|spoke|talked) |
    how did (?:the|your|that|it|you) | how (?:has|have|was) (?:the|your) (?:week|homework|practice) |
    were you able to | did you (?:manage|get a chance|have a chance|try)
    """
)
SUMMARY = _any_of(
    r"""
    to sum(?:mari[sz]e| up) | in summary | let me (?:sum|see if|check|make sure) | so far (?:we|you) |
    we(?:'ve| have) (?:talked|discussed|covered|explored|identified) | what i(?:'m| am) hearing | recap |
    (?:today|main|key) (?:takeaways?|points?) | take away
    """
)
FEEDBACK = _any_of(
    r"""
    feedback | how (?:was|did|do you feel about) (?:this|today|our|the) (?:session|conversation|discussion) |
    how are you finding | does (?:that|this|it) (?:fit|make sense|sound|match|feel|resonate|seem) |
    how does (?:that|this|it) (?:sound|fit|land|sit|feel) | did i (?:miss|get|understand) | correct me |
    what stood out | most (?:helpful|useful) | unhelpful | anything (?:that )?(?:was|felt|i missed)
    """
)
REFLECTION = _any_of(
    r"""
    it sounds like | sounds like | it seems (?:like|that|as) | you(?:'re| are) (?:feeling|saying|telling|describing) |
    i hear | i can (?:hear|see|sense|tell) | you feel | you felt | you mentioned | you said | as you (?:say|said) |
    in other words | part of you
    """
)
EMPATHY = _any_of(
    r"""
    understandabl[ey] | makes? (?:a lot of )?sense | must (?:be|feel|have been) |
    that(?:'s| is) (?:really |very |so )?(?:hard|tough|difficult|painful) | i(?:'m| am) (?:so |really |very )?sorry |
    takes (?:a lot of )?courage | not alone | it(?:'s| is) (?:okay|ok|normal|natural|common) |
    understand (?:how|that|why) | appreciate
    """
)
PRAISE = _any_of(
    r"""
    great (?:job|work|start|step|question|insight|idea) | good (?:job|work|start|step|insight|idea) | well done |
    proud | excellent | wonderful | fantastic | amazing | impressive | important step | big step | progress
    """
)
COLLABORATION = _any_of(r"together | let'?s | let us | shall we | we (?:could|might|can) | as a team | our work")
LEAVE = _any_of(
    r"""
    would you be (?:willing|open|interested|comfortable) | are you (?:willing|open|up for|comfortable) |
    would it be (?:okay|ok|all right|alright|helpful|useful) | is (?:that|it) (?:okay|ok|all right|alright) |
    would you (?:like|mind|want) | if you(?:'d| would) like | may i | could we | what do you think
    """
)
ADVICE = _any_of(
    r"""
    you should | you need to | you have to | you must | you ought to |
    i(?:'d)? (?:suggest|recommend|advise|encourage) | try to | make sure | remember (?:that|to) |
    it(?:'s| is) important to | you could try | consider \w{1,20}ing
    """
)
THOUGHTS = _any_of(
    r"""
    thoughts? | beliefs? | believe | assumptions? | (?:going|went|goes|running) through your (?:mind|head) |
    tell(?:ing)? yourself | say(?:ing)? to yourself | self-talk | interpretations? |
    what (?:does|did) (?:that|it) mean
    """
)
FEELINGS = _any_of(
    r"""
    feel(?:s|ing|ings)? | felt | emotions? | emotional(?:ly)? | mood | sad(?:ness)? | anxi(?:ous|ety) | guilt(?:y)? |
    shame | angry | anger | hopeless(?:ness)? | overwhelm(?:ed|ing)
    """
)
BEHAVIOUR = _any_of(
    r"""
    activit(?:y|ies) | schedul(?:e|ing) | avoid(?:s|ed|ing|ance)? | small steps? | first step | routine |
    withdraw(?:n|ing|al)? | behaviou?rs? | what (?:did|do) you do | action plan | goals?
    """
)
DISCOVERY = _any_of(
    r"""
    evidence | another way (?:of|to) | other (?:ways?|explanations?|possibilit(?:y|ies)|perspectives?) | alternative |
    what would you (?:say|tell) | what might | how (?:likely|true|strongly|much do you believe) | what makes you |
    what leads you | worst (?:that could|thing|case) | best case | pros and cons | advantages? | looking back |
    friend in (?:your|the same) | what do you make of | what (?:does|do) (?:that|this|those) (?:tell|say)
    """
)
TECHNIQUES: Mapping[str, re.Pattern[str]] = {
    "thought record": _any_of(r"thought (?:record|log|diary|journal) | journal(?:ing)?"),
    "challenging thoughts": _any_of(
        r"""
        challeng(?:e|ing) (?:\w{1,20} ){0,3}(?:thoughts?|beliefs?) | cognitive restructuring | refram(?:e|ing) |
        balanced (?:thought|view|perspective) | automatic thoughts?
        """
    ),
    "naming distortions": _any_of(
        r"""
        distortions? | thinking (?:traps?|errors?|patterns?) | all-or-nothing | black-and-white |
        catastrophi[sz]\w{0,12} | mind[- ]reading | overgenerali[sz]\w{0,12} | personali[sz]ation
        """
    ),
    "core beliefs": _any_of(r"core beliefs? | downward arrow | underlying beliefs? | rules? for (?:living|yourself)"),
    "activation": _any_of(
        r"""
        behaviou?ral activation | activity (?:scheduling|schedule|log) | pleasant activit\w{1,3} | enjoyable
        """
    ),
    "experiment": _any_of(r"experiments? | test (?:out|it|this|that)"),
    "exposure": _any_of(r"exposure | hierarchy | gradual(?:ly)?"),
    "problem solving": _any_of(
        r"""
        problem[- ]solving | brainstorm\w{0,12} | options? | break (?:it|this|that|things|\w{1,20}) down
        """
    ),
    "calming": _any_of(r"breath(?:e|ing|s)? | relaxation | mindful(?:ness)? | grounding | meditat\w{1,5}"),
    "self-compassion": _any_of(r"self-compassion(?:ate)? | kind(?:er)? to yourself | self-care | be gentle"),
    "rating": _any_of(r"scale (?:of|from) | 0 to 10 | 1 to 10 | 0-10 | 1-10 | 0 to 100 | out of 10 | percent"),
    "model": _any_of(r"cbt | cognitive[- ]behaviou?ral | cycle | connect(?:ion|ed) between | triggers?"),
    "imagery and role play": _any_of(r"role[- ]play\w{0,12} | imagine | picture yourself | visuali[sz]\w{0,12}"),
}
"""Wordings of techniques: one feature counts how many of these are named at all, another the turns that name any."""

FAREWELL = _any_of(
    r"""
    take care | goodbye | see you (?:next|then|soon) | next session | our next | until next time | end (?:of|our) |
    wrap up | look(?:ing)? forward to
    """
)
ARGUMENT = _any_of(
    r"""
    you'?re wrong | that'?s not true | you shouldn'?t | stop (?:saying|thinking|feeling) | just (?:get over|forget) |
    no, you
    """
)
OPEN_QUESTION = re.compile(r"\b(?:what|how|when|where|which|who|tell me|could you|can you)\b[^.?!]{0,300}\?")

WORDINGS: Mapping[str, Wording] = {
    "agenda_opening": Wording("names or asks for what the session is for", AGENDA, "opening"),
    "agenda": Wording("the same anywhere", AGENDA),
    "homework_closing": Wording("speaks of what to do until the next session", HOMEWORK, "closing"),
    "homework": Wording("the same anywhere", HOMEWORK),
    "review_opening": Wording("comes back to the last session or its homework", REVIEW, "opening"),
    "summary": Wording("sums up", SUMMARY),
    "summary_closing": Wording("sums up at the end", SUMMARY, "closing"),
    "feedback": Wording("asks how something is taken", FEEDBACK),
    "feedback_closing": Wording("the same at the end", FEEDBACK, "closing"),
    "reflection": Wording("gives back what was said", REFLECTION),
    "empathy": Wording("acknowledges, validates", EMPATHY),
    "praise": Wording("praises", PRAISE),
    "collaboration": Wording("speaks of joint work", COLLABORATION),
    "asks_leave": Wording("asks leave or the patient's opinion", LEAVE),
    "advice": Wording("advises, instructs", ADVICE),
    "thoughts": Wording("speaks of thoughts and beliefs", THOUGHTS),
    "feelings": Wording("speaks of feelings", FEELINGS),
    "behaviour": Wording("speaks of activities, avoidance, steps", BEHAVIOUR),
    "discovery": Wording("looks at evidence, alternatives, consequences", DISCOVERY),
    "farewell": Wording("closes the session", FAREWELL, "closing"),
    "argument": Wording("contradicts", ARGUMENT),
}
