"""The system prompts of a corpus, and the one of a trained model that is saved and served."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.chat_files import TrainedPrompt
from cbtrain.tokens.config import TokensConfig
from cbtrain.tokens.default_system import takes_default_system
from cbtrain.tokens.dialogue import own_prompt, patient_system
from cbtrain.tokens.document_builder import Unit
from cbtrain.transcripts.types import Role, Session


class OwnPrompts:
    """Counts the sessions that have a system prompt of their own, and the different prompts among them."""

    def __init__(self, sessions: Iterable[Session] = ()) -> None:
        self.sessions = self.with_prompt = 0
        self._digests: set[bytes] = set()  # the texts could take as much memory as the corpus
        for session in sessions:
            self.add(session)

    def add(self, session: Session) -> None:
        prompt = own_prompt(session)
        self.sessions += 1
        if prompt:
            self.with_prompt += 1
            self._digests.add(blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=16).digest())

    def notice(self, config: TokensConfig) -> str:
        """Return what ``tokens.system`` makes of them, "" if there is nothing to say."""
        if not self.with_prompt:
            none = "no session has its own system prompt: tokens.therapist_system is used (tokens.system=data)"
            return none if config.system == "data" else ""
        different = f"{len(self._digests):,} different" if len(self._digests) > 1 else "the same"
        has = f"{self.with_prompt:,} of {self.sessions:,} sessions have their own system prompt ({different})"
        if config.system == "none":
            return f"{has}. It is not used: no system message is trained (tokens.system=none)"
        if config.system == "ours":
            return f"{has}. It is not used, tokens.therapist_system is; tokens.system=data uses it"
        others = self.sessions - self.with_prompt
        rest = f", in the other {others:,} with tokens.therapist_system" if others else ""
        return f"{has}. The therapist is trained with it{rest} (tokens.system=data)"


def trained_prompt(units: Sequence[Unit], speaker: Role, config: TokensConfig, renderer: ChatRenderer) -> TrainedPrompt:
    """Return the system prompt to serve the model that was trained on ``units``, rendered by ``renderer``.

    That is the prompt of most units, if the data give one at most. There is none if they give several, if it is the
    profile of a patient (who must not get into a published card), or if no system message was trained.
    """
    prompts = Counter(unit.system for unit in units)
    if speaker == "patient" and set(prompts) != {patient_system(None)}:
        profile = "the profile of each patient was the system prompt: send that of the patient to be played"
        return TrainedPrompt(None, profile)
    given = [prompt for prompt in prompts if prompt != config.therapist_system]
    if len(given) > 1:
        several = f"the sessions were trained with {len(prompts):,} different system prompts: send one of them"
        return TrainedPrompt(None, several)
    text = max(prompts, key=lambda prompt: (prompts[prompt], prompt in given))
    if not text:
        return TrainedPrompt(None, "no system message was trained: send none")
    return TrainedPrompt(text, in_template=takes_default_system(renderer.tokenizer, renderer.format.template, text))
