"""English wordings by which a patient's turn is seen not to be one: of therapists, assistants, and sudden recovery.

They are searched in lower-case text with straight apostrophes. A new wording is tried on sound patients first
(``tests/eval/simulation/test_drift.py``).
"""

from __future__ import annotations

import re
from typing import Literal

Drift = Literal["therapist_speech", "repetition", "speaks_for_both", "soft_refusal", "gives_in"]

DEGREE = r"(?:really|very|so|completely|totally|perfectly|entirely|quite|absolutely|incredibly|truly|deeply) "
TASK_VERBS = (
    r"(?:try|practi[cs]e|notice|imagine|picture|write|track|rate|identify|consider|challenge|reflect|focus|keep a"
    r"|set aside|close your eyes|take a (?:deep|slow|few)|think (?:about|of))"
)
GREAT = r"(?:great|good|excellent|wonderful|fantastic|amazing)"
MUCH = r"(?:such |so much |a lot of |great |good |real |amazing |incredible |significant |tremendous |wonderful )"
SELF = r"(?:so |really |very |deeply |truly |incredibly )?"
YOURS = r"you(?:'re| are|'ve| have| feel| seem| might| may)"


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.MULTILINE)


GUIDES: tuple[re.Pattern[str], ...] = (
    _any(
        r"\bas your (?:therapist|counsell?or|clinician|psychologist)\b",
        r"\bas (?:a|the) (?:therapist|counsell?or|clinician|psychologist),? i\b",
        r"\bas your cbt\b",
    ),
    _any(
        rf"\bi(?:'d| would) (?:like|love|want|encourage|invite) (?:for )?you to {TASK_VERBS}",
        rf"\bi(?:'d)? (?:encourage|invite|urge|want|challenge) you to {TASK_VERBS}",
    ),
    _any(
        r"\b(?:for|as) (?:your )?homework(?: this week)?,? (?:i'd like you|i want you|try|please|you can|you could)",
        r"\byour homework (?:assignment )?(?:for (?:this|the|next)|this week|is to|will be)",
        r"\bi(?:'d like to| will|'ll| am going to|'m going to) (?:assign|give) you (?:some |a )?homework",
    ),
    _any(
        r"\bwhat (?:was|is|were|went) (?:going |running )?through your (?:mind|head)",
        r"\bwhat (?:thoughts?|emotions?|feelings?|evidence) (?:do|did|are|were|might|can) you "
        r"(?:hav|notic|experienc|feel|identif|find|think)",
        r"\bwhat (?:comes up|came up|comes to mind) for you\b",
        r"\bhow (?:does|did|do) (?:that|this|it|those thoughts?|these thoughts?) make you feel\b",
        r"\bwhere (?:do|did) you (?:feel|notice) (?:that|this|it) in your body\b",
        r"\bhow (?:would|do) you rate your\b",
        r"\bhow (?:have|are) you (?:been )?(?:coping|managing|feeling) (?:since (?:our|we)|this week)",
    ),
    _any(
        rf"\bi(?:'m| am) {SELF}proud of (?:you\b|the (?:progress|work|effort) you|how (?:far )?you)",
        rf"\byou(?:'ve| have) made {MUCH}?{MUCH}?progress\b",
        rf"\byou(?:'re| are) (?:doing|making) {MUCH}?(?:an? )?{GREAT} (?:job|progress|work)\b",
        r"(?<!appreciate )(?<!for )\byour (?:willingness|openness|courage|insight|self-awareness|resilience|hard work)"
        r" (?:to (?:try|share|open|explore|practi[cs]e|engage|work on)|is|shows?|has|will)\b(?! (?:help|mean))",
    ),
)
"""What no patient says to a therapist."""

SOUNDS_LIKE_THERAPIST: tuple[re.Pattern[str], ...] = (
    _any(
        rf"\b(?:it )?(?:sounds|seems|looks) like {YOURS}(?! (?:saying|telling|suggesting|asking|describing|trying"
        r"|implying|judging|reading))",
        rf"\bi (?:can )?hear (?:that |how )?{YOURS}",
        r"\bi (?:can )?(?:see|sense|understand|imagine) (?:that|how|why) (?:difficult |hard |much )?you(?:'re| are"
        r"|'ve| have)? (?:been )?(?:feel|struggl|go|deal|carry|work)",
    ),
    _any(
        rf"\b(?:it's|it is|that's|that is) (?:{DEGREE})?(?:understandable|normal|natural|okay|ok|common|valid|great"
        r"|wonderful|important|admirable) (?:that|to feel|for you|you)",
        r"\byour feelings are (?:completely |totally |absolutely )?(?:valid|understandable|normal)",
    ),
    _any(
        r"\bit's (?:also )?(?:important|essential|crucial) (?:to (?:recognize|acknowledge|note|celebrate)|that you)",
        r"\bit's (?:clear|evident|great|wonderful) (?:to (?:hear|see) )?(?:that |how )?you(?:'re| are|'ve| have)\b",
        r"\bthat's (?:wonderful|great|fantastic|good) to hear\b",
    ),
    _any(r"\bwhat do you notice(?: now)?\?", r"\bnotice how (?:it|that|your|you)\b[^.!?\n]{0,40}\byou"),
    _any(r"\bthank you for (?:sharing|opening up|trusting|being (?:so )?(?:open|honest|vulnerable))"),
    _any(
        r"\blet's (?:explore|delve|dive|examine|unpack|move on to|break (?:this|that|it) down|challenge|look at (?:the"
        r"|your|some|this|that)|start by|begin (?:by|with)|discuss|review|identify|brainstorm|practi[cs]e|create"
        r"|set (?:a|some))\b",
    ),
    _any(
        r"\b(?:can|could|would) you (?:tell|share|describe|elaborate|walk)(?: me| with me)?(?: a (?:bit|little))?"
        r"(?: more)? (?:about|on|through) (?:what you|how you|your (?:feelings?|thoughts?|experience|day|week"
        r"|relationship|symptoms|sleep|family))",
        r"\bhow (?:are|have|do) you (?:been )?feel(?:ing)?\b",
        r"\bhow (?:has|was|is) your (?:week|day|mood|sleep)\b",
        r"\b(?:would|are) you (?:be )?(?:open|willing|comfortable|ready) (?:to|with) (?:try|explor|shar|discuss|work)",
        r"\bhow (?:does|do|would|might) (?:that|this|these) (?:sound|feel|land|resonate)(?: (?:to|for|with) you)?\?",
    ),
    _any(
        r"\byou (?:might|could|can|may) (?:also )?(?:try|consider|want to|find it|start|begin|set|practi[cs]e|use)\b",
        r"(?:^|[.!?:*] )(?:consider|remember|try|start by|begin by|be kind to|practi[cs]e|allow|give yourself|set aside"
        r"|ask yourself|remind yourself|keep a)\b[^.!?\n]{0,60}\byou",
    ),
    _any(
        r"(?:^|[.!?] )(?:remember,? (?:that )?(?:it's|you|progress|healing|recovery|change)|be (?:gentle|patient|kind)"
        r" with yourself)\b",
    ),
    _any(
        rf"(?:^|[.!?] ){GREAT} (?:job|work|progress|insight|question|start)\b",
        r"\b(?:that's|that is) (?:a )?(?:great|excellent|wonderful|fantastic|really good|very good) (?:step|insight"
        r"|observation|progress|awareness|start)\b",
        r"\bthat's (?:a )?(?:very )?(?:powerful|good|great|positive|significant) (?:connection|shift|observation|step"
        r"|insight)\b",
        r"\byou(?:'re| are) (?:doing|showing|taking|making) (?:so |such |a |really |great |very |important ){0,2}"
        r"(?:great|well|strength|courage|step|insight)",
        rf"\bi(?:'m| am) {SELF}(?:glad|happy|pleased) (?:to hear )?(?:that )?you(?:'re| are|'ve| have| could| were)? "
        r"(?:able|feel|found|made|taking|willing|making|open|shar|here)",
    ),
    _any(
        r"\bi(?:'m| am) here (?:to (?:support|listen|guide|work with)|for) you\b",
        r"\b(?:in|for|before) our next session,? (?:we(?:'ll| will| can)|i(?:'d| would) like|try|let's)",
        r"\bwe(?:'ll| will| can) (?:explore|work on|discuss|review|address|continue to work|practi[cs]e) (?:this|that"
        r"|these|your|some|how)",
    ),
    _any(
        r"\bhow about we (?:discuss|talk about|explore|focus on)\b[^.!?\n]{0,60}\byour\b",
        r"\bi(?:'d like| would like| want) to (?:introduce (?:you to|a|an)|walk you through|guide you|help you"
        r"|offer you|check in (?:on|with) you|acknowledge (?:how|your|that you))",
        r"\bwould you be (?:interested in|open to|willing to) (?:try|explor|shar|do|discuss|practi[cs])",
        r"\bi(?:'ll| will) guide you\b",
    ),
    _any(
        r"\byou (?:also )?mentioned (?:being|having|that you|feeling|your)\b",
        r"\byour (?:daily life|overall (?:mental|well)|mental health|emotions|coping (?:skill|mechanism|strateg))"
        r"[^.!?\n]{0,60}\?",
    ),
)
"""What a patient rarely says; two different ones are no chance."""

POINT = re.compile(r"^[ \t]{0,4}(?:\d{1,2}[.)]|[-*•])[ \t]{1,4}\S", re.MULTILINE)
"""A point of a list: to somebody else three are advice, of oneself a piece of homework."""

DOES = r"(?:nod|smile|lean|pause|say|ask|respond|repl|listen|sit|write|take|look)"
NARRATES = re.compile(
    rf"[*_(\[](?:the |your |my )?(?:therapist|counsell?or) (?:softly |gently |slowly |calmly )?{DOES}(?:s|ies)?\b"
    r"|\((?:therapist|counsell?or)\)\*{0,3}:",
    re.IGNORECASE,
)
"""A stage direction for the therapist, or a name with their profession as a label."""

PLAY = re.compile(r"\brole-?\s?play(?:ing)?\b|\bsimulation\b|\b(?:this|the|that) (?:scenario|character|persona)\b")
NOT_TO_PLAY = _any(
    r"\b(?:rather|prefer) (?:not|to not|to stop)\b(?! (?:talk|think))",
    r"\b(?:can't|cannot|won't|don't want to|(?:not|n't) (?:able to|comfortable|feel comfortable)) (?:continu|engag"
    r"|participat|proceed)",
    r"\b(?:end|stop|leave|step out of|stepping out of) (?:this|the) (?:role-?play|simulation|scenario|character)",
)
OUT_OF_CHARACTER = re.compile(r"\b(?:step|stepping|break|breaking) (?:out of )?character\b")
"""A sentence that names the play and will not go on with it, or leaves it."""

ASSISTANT: tuple[re.Pattern[str], ...] = (
    _any(
        r"\blet's (?:try to )?keep (?:this|the|our|things?) (?:conversation|discussion|chat|session)? ?(?:positive"
        r"|respectful|appropriate|safe|constructive|lighthearted|friendly)\b",
    ),
    _any(
        r"\bi(?:'m| am) here to (?:help|assist)(?: you\b| with (?:any|whatever|your)|[.!]|$)",
        r"\bhow (?:can|may|could) i (?:help|assist) you\b",
        r"\banything else (?:that )?(?:i can|you'd like me to|you would like me to) (?:help|assist)\b",
        r"\bhappy to (?:help|assist) (?:you )?with (?:any|your|other|that|something)",
        r"\bfeel free to (?:ask|reach out|share|let me know)",
        r"\bif you (?:ever |have any |need |would like |want |feel )[^.!?\n]{0,60}(?:let me know|don't hesitate"
        r"|reach out|i'm here)",
    ),
    _any(
        r"\bi(?:'m| am) (?:just |only )?(?:an ai|an? (?:large )?language model|a (?:virtual|digital) assistant"
        r"|an artificial intelligence)\b",
        r"\bas an ai(?: language model| assistant)?,? i(?:'m| am| can't| cannot| don't| do not| must)\b",
        r"\bmy (?:content )?(?:guidelines|content policy|safety policy)\b",
    ),
    _any(
        r"\bplease (?:reach out to|contact|call|seek|consult)[^.!?\n]{0,30}\b(?:professional|hotline|helpline|lifeline"
        r"|crisis|988|emergency)\b",
    ),
    _any(
        r"\bi (?:strongly )?(?:encourage|urge|recommend) (?:that )?you (?:to )?(?:reach out|contact|call|seek)\b",
    ),
    _any(
        r"\bi (?:don't|do not) (?:see|have) (?:the|any|access to (?:the|any)) (?:conversation|chat|session) (?:history"
        r"|content|transcript)",
        r"\b(?:conversation|transcript|session content) (?:was|has been|is) (?:not )?provided\b",
    ),
)
"""What a model says that has fallen out of its part."""

AGREES = _any(
    r"\byou(?:'re| are) (?:absolutely|so|completely|totally|exactly|entirely) right\b",
    r"^(?:absolutely|exactly|definitely)[.!,]",
    r"\b(?:makes|make|made) (?:perfect|complete|total|so much) sense\b",
    r"\b(?:i )?(?:completely|totally|fully|absolutely|couldn't) agree\b",
    r"\b(?:wow|that's (?:amazing|brilliant|incredible|perfect|wonderful|such a (?:great|good)))\b",
    r"\bi never (?:thought|looked at|saw|realized|realised)\b",
)
PLAINLY_AGREES = re.compile(r"\byou(?:'re| are) right\b|\b(?:makes|make) sense\b|^(?:yes|okay|sure)[.!,]")
"""Enough beside a transformation."""
GRATEFUL = _any(
    r"\bthank(?:s| you) (?:so|very) much\b",
    r"\bthank you,? (?:really|truly)\b",
    r"\bi(?:'m| am) (?:so|really|very|deeply|truly|incredibly) grateful\b",
    r"\bi can't thank you enough\b",
    r"\byou(?:'ve| have) (?:really )?helped me (?:so much|a lot|already)\b",
    r"^thank(?:s| you)\b",
)
COMMITS = _any(
    r"\bi (?:can't|cannot) wait to\b",
    r"\bi(?:'ll| will|'m going to| am going to) (?:definitely |absolutely )?(?:start|do|try|begin)\b[^.!?\n]{0,20}"
    r"\b(?:right away|today|tonight|immediately|every day|from now on|right now)\b",
    r"\bi(?:'m| am) (?:so |really |very )?(?:excited|eager|thrilled|motivated|inspired) (?:to|about|for)\b",
    r"\bfrom now on,? i\b",
)
FEELS = r"(?:better|lighter|hopeful|happier|happy|free|great|amazing|relieved|like a (?:new|different) person)"
TRANSFORMED = _any(
    rf"\b(?:i )?(?:already|suddenly) feel(?:ing)? (?:so |a lot |much |so much |more )?{FEELS}\b",
    rf"\bi feel (?:already )?(?:so much|a lot|much|completely|a whole lot|a thousand times) {FEELS}"
    r"(?: now| already|[.!]|$)",
    r"\b(?:this|that|it) changes everything\b",
    r"\b(?:this|that|it) (?:has )?(?:just |really |completely )?(?:opened my eyes|changed (?:my|how i))",
    r"\bi (?:now |suddenly )?feel (?:so |really |so much )?(?:hopeful|free|lighter|relieved|better) (?:now|already)",
    r"\beverything (?:makes sense|is clear|feels clear|feels different|seems clear)\b",
    r"\byou(?:'ve| have) (?:just )?(?:completely |totally |really )?(?:changed|opened my|transformed|turned)\b",
    r"\bweight (?:has (?:just )?(?:been )?|was |is |just )?(?:been )?lift(?:ed|ing)\b",
    r"\bi(?:'m| am) (?:cured|healed|a new person|a changed)\b",
    r"\bi (?:no longer|don't) feel (?:so )?(?:depressed|anxious|hopeless|worthless|sad|guilty)(?: anymore| now|[.!])",
    r"\bi (?:finally )?(?:see|understand|realize|realise) (?:now|it all)\b[^.!?\n]{0,20}\b(?:clearly|everything|enough"
    r"|worthy)\b",
)
HEDGES = _any(
    r"\b(?:but|though|although|however|still|yet|unless|except)\b",
    r"\b(?:i guess|i suppose|maybe|perhaps|not sure|unsure|i don't know|kind of|sort of|a (?:little|bit)|probably"
    r"|might|i think i could)\b",
    r"\b(?:hard|difficult|scared|scary|afraid|nervous|worried|doubt|skeptical|sceptical|struggl[a-z]{1,3}|tough)\b",
    r"\?",
)
"""A reserve, a doubt or a question: then a patient does not give in."""
