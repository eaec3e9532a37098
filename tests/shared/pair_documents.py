"""Random pairs of answers as documents, and the plain way to their loss: two documents each."""

import numpy as np

from cbtrain.tokens.document import Branches, Document
from cbtrain.tokens.pack import build_pack
from cbtrain.training.loss import token_losses


def pair(random, vocabulary, *, shared, chosen, rejected, weight=1.0, prompt_counts=False, gaps=0.0):
    """Return a pair in one document and as two whole documents. Some tokens of the answers do not count (``gaps``)."""
    prompt, *answers = (random.integers(0, vocabulary, n).astype(np.int32) for n in (shared, chosen, rejected))
    masks = [np.append((random.random(len(answer) - 1) >= gaps), True).astype(np.float32) for answer in answers]
    of_prompt = np.full(shared, float(prompt_counts), np.float32)
    of_prompt[0] = 0
    whole = [
        Document("whole", np.concatenate([prompt, answer]), np.concatenate([of_prompt, mask]))
        for answer, mask in zip(answers, masks, strict=True)
    ]
    last, zero = prompt[-1:], np.zeros(1, np.float32)
    ids = np.concatenate([prompt, answers[0], last, answers[1]])
    weights = np.concatenate([of_prompt, masks[0], zero, masks[1]])
    branches = Branches(shared - 1, shared + chosen, weight)
    return Document("pair", ids, weights, branches=branches), whole


def pairs(random, vocabulary, count):
    """Return ``count`` pairs of different lengths and weights."""
    sizes = random.integers((3, 2, 2), (12, 9, 9), (count, 3)).tolist()
    weights = random.choice([0.5, 1.0, 2.0], count).tolist()
    return [
        pair(random, vocabulary, shared=a, chosen=b, rejected=c, weight=weight, gaps=0.2)[0]
        for (a, b, c), weight in zip(sizes, weights, strict=True)
    ]


def plain_answers(decoder, whole, *, prompt):
    """Return summed log-probability and number of tokens of the answers, and of the prompt before the chosen one, from
    whole documents."""
    found = []
    for document in whole:
        pack = build_pack([document])
        losses, weights = token_losses(decoder, pack)
        answer = pack.target_positions >= prompt - 1
        found.append((-(losses * weights)[answer].sum(), weights[answer].sum()))
        found.append((-(losses * weights)[~answer].sum(), weights[~answer].sum()))
    (chosen, of_shared, rejected, _) = found
    return chosen, rejected, of_shared
