"""Draws of a batch: filters as in transformers, noise of a hash, and each row by itself."""

from __future__ import annotations

import math
import random

import pytest
import torch
from pydantic import ValidationError
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from cbtrain.config.loading import load_config
from cbtrain.errors import UserError
from cbtrain.generation.config import SamplingConfig
from cbtrain.generation.sampling import draw as draws
from cbtrain.generation.sampling import filters
from cbtrain.generation.sampling.draw import Draw, Drawn, LogitsNotFinite, NothingAllowed, draw
from cbtrain.generation.sampling.edits import apply_edits
from cbtrain.generation.sampling.noise import STEP, gumbel, hashed, key, output, seed_state
from cbtrain.text.faults import first_fault

PURE = SamplingConfig(temperature=1, top_p=1)
GREEDY = SamplingConfig(temperature=0)


def rows_of(config, count, **options):
    return [Draw(config, seed, [1, 2, 3], **options) for seed in range(count)]


def tokens_of(logits, rows, allowed=None):
    drawn = draw(logits, rows, allowed or [None] * len(rows))
    assert all(isinstance(one, Drawn) for one in drawn), drawn
    return [one.token for one in drawn]


def random_config(chance):
    return SamplingConfig(
        temperature=chance.choice([0, 0.3, 0.8, 1, 2]),
        top_p=chance.choice([1, 0.95, 0.5, 1e-9, 0.999]),
        top_k=chance.choice([0, 0, 1, 40, 128, 129, 500, 10_000]),
        min_p=chance.choice([0, 0, 0.05, 1]),
        repetition_penalty=chance.choice([1, 1, 1.3]),
        presence_penalty=chance.choice([0, 0.5]),
        frequency_penalty=chance.choice([0, -0.5]),
        min_tokens=chance.choice([0, 3]),
    )


# The noise


def split_mix_64(state):
    """SplitMix64 as its authors write it, in Python's integers."""
    while True:
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        word = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) % 2**64
        yield word ^ (word >> 31)


def test_the_hash_is_split_mix_64():
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    generator = split_mix_64(1234567)
    assert [output(1234567, index) for index in range(4)] == published == [next(generator) for _ in range(4)]
    for seed, position in ((0, 0), (-5, 3), (2**80 + 7, 10_000)):
        start = key(seed_state(seed), position)
        generator = split_mix_64(start % 2**64)
        found = hashed(torch.tensor([[start]]), torch.arange(500))[0]
        assert [number % 2**64 for number in found.tolist()] == [next(generator) for _ in range(500)]


def test_the_noise_is_finite_and_precise_at_both_ends():
    """The inverse of the hash is not needed: the state is chosen so that the hash has the bits that are wanted."""

    def unmixed(word):
        for places, factor in ((31, 0x94D049BB133111EB), (27, 0xBF58476D1CE4E5B9), (30, None)):
            whole = word
            for _ in range(64 // places):
                whole = word ^ (whole >> places)
            word = whole * pow(factor, -1, 2**64) % 2**64 if factor else whole
        return (word - STEP) % 2**64

    for bits in (0, 1, 2**51, 2**52 - 1):
        state = unmixed(bits)
        assert output(state, 0) == bits
        uniform = (bits + 0.5) / 2**52
        expected = -math.log(-math.log1p(-uniform))
        noise = gumbel(torch.tensor([state - 2**64 if state >> 63 else state]), torch.tensor([0])).item()
        assert noise == pytest.approx(expected, rel=1e-6)
        assert math.isfinite(noise)


def test_noise_is_gumbels_and_neighbours_are_independent():
    seeds, positions, ids = 40, 40, 40
    keys = torch.tensor([[[key(seed_state(seed), position)] for position in range(positions)] for seed in range(seeds)])
    noise = gumbel(keys, torch.arange(ids))
    assert noise.shape == (seeds, positions, ids)
    # The distribution: deciles of 64,000 numbers; 27.9 is the 99.9 % quantile of chi-square with 9 degrees of freedom.
    uniform = (-(-noise.double()).exp()).exp().flatten()
    counts = (uniform * 10).long().bincount(minlength=10).double()
    expected = uniform.numel() / 10
    assert ((counts - expected) ** 2 / expected).sum() < 27.9
    # Correlation with each neighbour, near and far, along seed, position and id: 4 standard errors.
    centred = (noise - noise.mean()) / noise.std()
    for axis in range(3):
        for distance in (1, 2, 16):
            length = noise.shape[axis] - distance
            products = centred.narrow(axis, 0, length) * centred.narrow(axis, distance, length)
            assert abs(products.mean()) < 4 / math.sqrt(products.numel()), (axis, distance)
    # Nor does the place of one axis stand for that of another: a diagonal is a constant sum.
    assert len(set(keys.flatten().tolist())) == seeds * positions


# The filters


def transformers_keep(logits, config):
    scores = logits[None]
    warpers = [TemperatureLogitsWarper(float(config.temperature))]
    warpers += [TopKLogitsWarper(config.top_k)] if config.top_k else []
    warpers += [TopPLogitsWarper(config.top_p)] if config.top_p < 1 else []
    warpers += [MinPLogitsWarper(config.min_p)] if config.min_p else []
    for warper in warpers:
        scores = warper(None, scores)
    return set((scores[0] > -math.inf).nonzero()[:, 0].tolist())


@pytest.mark.parametrize("candidates", [False, True])
def test_the_same_tokens_are_kept_as_by_transformers(candidates, monkeypatch):
    """Whether a token is kept shows where its noise, and no other's, is large enough to win."""
    chance = random.Random(0)
    torch.manual_seed(0)
    vocabulary, decided = 300, 0
    for _ in range(150):
        config = SamplingConfig(
            temperature=chance.choice([0.3, 0.8, 1, 3]),
            top_p=chance.choice([1, 0.95, 0.7, 0.2, 1e-9, 1e-300]),
            top_k=chance.choice([0, 0, 1, 5, 40, 128]),
            min_p=chance.choice([0, 0, 0.02, 0.3, 1]),
        )
        logits = torch.randn(vocabulary) * chance.choice([0.3, 1, 4])
        # One row for each token, which wins there if it is kept, and one of another request.
        winner = torch.eye(vocabulary + 1, vocabulary) * 1e6
        with monkeypatch.context() as patch:
            patch.setattr(filters, "gumbel", lambda _, ids, noise=winner: noise.gather(1, ids.expand(len(noise), -1)))
            patch.setattr(filters, "CACHED", winner.numel())  # one part
            rows = filters.Filters.of([config] * vocabulary + [SamplingConfig()], vocabulary, logits.device)
            distances = ((logits - logits.max()) / config.temperature).expand(len(winner), -1).clone()
            keys = torch.zeros((len(winner), 1), dtype=torch.int64)
            tokens = (filters.among_candidates if candidates else filters.among_all)(distances, rows, keys)[:-1]
        if candidates and int(tokens[0]) == filters.UNDECIDED:
            assert (tokens == filters.UNDECIDED).all()
            continue
        decided += 1
        kept = {row for row, token in enumerate(tokens.tolist()) if token == row}
        assert kept == transformers_keep(logits, config), config
    assert decided > 75


def test_equal_logits_are_kept_or_dropped_together():
    logits = torch.tensor([[2.0, 1.0, 1.0, 1.0, 0.0]])
    for settings in ({"top_k": 2}, {"top_p": 0.6}, {"min_p": 0.3}):
        config = SamplingConfig(**{"temperature": 1, "top_p": 1} | settings)
        found = {tokens_of(logits, [Draw(config, seed, ())])[0] for seed in range(100)}
        assert found == {0, 1, 2, 3}, settings


def test_draws_have_the_models_distribution():
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    logits = (probabilities * 7).log()
    count = 4000

    def chi_square(rows, config, expected):
        drawn = torch.tensor(tokens_of(logits.expand(count, -1), rows)).bincount(minlength=4).double()
        expected = expected / expected.sum() * count
        assert not drawn[expected == 0].any()
        return ((drawn - expected) ** 2 / expected.clamp(min=1e-9)).sum()

    halved = probabilities.sqrt()
    for config, expected in (
        (PURE, probabilities),
        (SamplingConfig(temperature=2, top_p=1), halved),
        (SamplingConfig(temperature=1, top_p=0.81), probabilities * torch.tensor([1, 1, 1, 0])),
        (SamplingConfig(temperature=1, top_p=1, top_k=2), probabilities * torch.tensor([1, 1, 0, 0])),
        (SamplingConfig(temperature=2, top_p=1, min_p=0.5), halved * torch.tensor([1, 1, 1, 0])),
    ):
        seeds = rows_of(config, count)
        positions = [Draw(config, 7, ()) for _ in range(count)]
        for position, row in enumerate(positions):
            row.position = position
        for rows in (seeds, positions):
            assert chi_square(rows, config, expected) < 16.3  # 99.9 % with 3 degrees of freedom


# Each row by itself


@pytest.mark.fault("C1")
def test_a_rounding_difference_changes_no_draw():
    """As many forwards of another batch do: 1e-6 of each logit. A draw differs only if two sums of logit and noise are
    that close, or a filter's border lies between the two: each once in some hundred thousand draws."""
    torch.manual_seed(1)
    for scale in (0.5, 3):
        logits = torch.randn(400, 1024) * scale
        disturbed = logits * (1 + 1e-6 * (2 * torch.rand_like(logits) - 1))
        assert not torch.equal(logits, disturbed)
        config = SamplingConfig()
        assert tokens_of(logits, rows_of(config, 400)) == tokens_of(disturbed, rows_of(config, 400))


def test_a_row_is_drawn_alike_alone_and_in_any_batch_and_on_any_path(monkeypatch):
    chance = random.Random(2)
    torch.manual_seed(2)
    vocabulary, count = 1003, 60
    logits = torch.randn(count, vocabulary) * torch.tensor([[0.3], [2], [6]]).repeat(count // 3, 1)
    rows, masks = [], []
    for seed in range(count):
        bias = {chance.randrange(vocabulary): chance.uniform(-5, 5) for _ in range(chance.choice([0, 3]))}
        row = Draw(random_config(chance), seed, range(50), stop_ids=frozenset({7, 8}), logit_bias=bias)
        for _ in range(chance.randrange(6)):
            row.add(chance.randrange(vocabulary))
        rows.append(row)
        masks.append(torch.rand(vocabulary) < 0.5 if chance.random() < 0.3 else None)
    alone = [tokens_of(logits[i : i + 1], [rows[i]], [masks[i]])[0] for i in range(count)]
    assert len(set(alone)) > count // 2
    for _ in range(5):
        order = chance.sample(range(count), chance.randrange(2, count))
        batch = tokens_of(logits[order], [rows[i] for i in order], [masks[i] for i in order])
        assert batch == [alone[i] for i in order]
    half = logits.bfloat16()
    assert tokens_of(half, rows, masks) == tokens_of(half.float(), rows, masks)
    for module, name, value in (
        (filters, "CANDIDATES", 8),
        (filters, "CACHED", 1),
        (draws, "fits_candidates", lambda config: False),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            assert tokens_of(logits, rows, masks) == alone, name


def test_a_broken_row_disturbs_no_other():
    torch.manual_seed(3)
    logits = torch.randn(8, 300)
    rows = rows_of(SamplingConfig(), 4) + rows_of(PURE, 3) + rows_of(GREEDY, 1)
    sound = tokens_of(logits, rows)
    nothing = torch.zeros(300, dtype=torch.bool)
    for broken in range(8):
        changed = logits.clone()
        changed[broken, 5] = math.nan
        masks = [None] * 8
        masks[(broken + 1) % 8] = nothing
        masks[(broken + 2) % 8] = torch.ones(299, dtype=torch.bool)
        masks[broken] = torch.arange(300) != 5  # hides the NaN
        others = list(rows)
        others[(broken + 3) % 8] = Draw(PURE, 0, (), logit_bias={300: 1.0})
        drawn = draw(changed, others, masks)
        assert isinstance(drawn[broken], LogitsNotFinite)
        assert isinstance(drawn[(broken + 1) % 8], NothingAllowed)
        for place, words in ((2, "mask has shape"), (3, "token 300")):
            assert words in str(drawn[(broken + place) % 8])
        for other in range(4, 8):
            assert drawn[(broken + other) % 8] == Drawn(sound[(broken + other) % 8])
    assert all(isinstance(one, LogitsNotFinite) for one in draw(torch.full((8, 300), math.nan), rows, [None] * 8))
    assert draw(torch.empty(0, 300), [], []) == []
    with pytest.raises(ValueError, match="bias of token 3"):
        Draw(PURE, 0, (), logit_bias={3: math.nan})


# Before the temperature


def test_penalties_are_those_of_transformers_and_openai():
    torch.manual_seed(4)
    logits = torch.randn(3, 150) * 3
    config = SamplingConfig(temperature=0, repetition_penalty=1.7)
    rows = [Draw(config, 0, [row, 3, 3, 40]) for row in range(3)]
    for row in rows:
        for token in range(10, 149):  # more than the table has at first
            row.add(token)
    ids = torch.tensor([[row, 3, 3, 40, *range(10, 149)] for row in range(3)])
    expected = RepetitionPenaltyLogitsProcessor(1.7)(ids, logits)
    assert torch.equal(apply_edits(logits, rows, [None] * 3), expected)

    row = Draw(SamplingConfig(presence_penalty=0.5, frequency_penalty=0.25), 0, [1, 1, 2])
    for token in (5, 5, 5, 6):
        row.add(token)
    changed = logits[0] - apply_edits(logits[:1], [row], [None])[0]
    assert changed.nonzero()[:, 0].tolist() == [5, 6]
    torch.testing.assert_close(changed[[5, 6]], torch.tensor([1.25, 0.75]))
    both = Draw(SamplingConfig(repetition_penalty=2, presence_penalty=0.5), 0, [1])
    both.add(2)
    assert apply_edits(torch.ones(1, 4), [both], [None]).tolist() == [[1, 0.5, 0, 1]]


def test_bias_masks_and_least_lengths():
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    before = logits.clone()
    assert tokens_of(logits, [Draw(GREEDY, 0, (), logit_bias={1: 2.5})]) == [1]
    assert tokens_of(logits, [Draw(GREEDY, 0, (), logit_bias={3: -math.inf})]) == [2]
    assert tokens_of(logits, rows_of(GREEDY, 1), [torch.tensor([True, True, False, False])]) == [1]
    assert tokens_of(torch.zeros(1, 4), rows_of(GREEDY, 1)) == [0]
    row = Draw(SamplingConfig(temperature=0, min_tokens=2), 0, (), stop_ids=frozenset({3, 99}))
    found = []
    for _ in range(3):
        found += tokens_of(logits, [row])
        row.add(found[-1])
    assert found == [2, 2, 3]
    assert torch.equal(logits, before)
    every = Draw(SamplingConfig(min_tokens=1), 0, (), stop_ids=frozenset(range(4)))
    assert isinstance(draw(logits, [every], [None])[0], NothingAllowed)


def test_logprobs_are_the_models_own():
    torch.manual_seed(5)
    logits = torch.randn(3, 200)
    mask = torch.arange(200) == 17
    rows = [Draw(GREEDY, 0, (), logprobs=5), Draw(PURE, 0, (), logprobs=0), Draw(SamplingConfig(), 0, ())]
    first, second, third = draw(logits, rows, [mask, None, None])
    expected = logits.log_softmax(-1)
    assert first.token == 17
    assert first.logprobs.chosen == pytest.approx(expected[0, 17].item())
    best = expected[0].topk(5)
    assert [token for token, _ in first.logprobs.top] == best.indices.tolist()
    assert [value for _, value in first.logprobs.top] == pytest.approx(best.values.tolist())
    assert second.logprobs.chosen == pytest.approx(expected[1, second.token].item())
    assert (second.logprobs.top, third.logprobs) == ((), None)


# The settings


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"temperature": 1e-46}, "temperature: must be 0, for the likeliest token, or at least 0.001"),
        ({"temperature": math.nan}, "temperature: must be a finite number"),
        ({"top_p": math.nan}, "top_p: must be a finite number"),
        ({"min_p": math.inf}, "min_p: must be a finite number"),
        ({"repetition_penalty": 0}, "repetition_penalty: must be at least 0.01"),
        ({"presence_penalty": 2.5}, "presence_penalty: must be at most 2"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens is 5, but max_tokens is 4; lower or raise one of them"),
    ],
)
def test_wrong_settings_are_refused_in_one_sentence(settings, problem):
    with pytest.raises(ValidationError) as caught:
        SamplingConfig(**settings)
    assert first_fault(caught.value) == problem


def test_a_patient_behind_an_api_is_given_no_setting_that_its_requests_leave_out():
    api = ["evaluation.patient_provider.base_url=http://localhost:1/v1", "evaluation.patient_provider.model=m"]
    for setting in ("top_k=40", "min_p=0.1", "repetition_penalty=1.1", "presence_penalty=-1", "min_tokens=3"):
        name = setting.partition("=")[0]
        with pytest.raises(UserError, match=f"patient.{name} is .*, but a patient behind an API is sent temperature"):
            load_config(None, [f"evaluation.patient.{setting}", *api])
        load_config(None, [f"evaluation.patient.{setting}"])
        load_config(None, [f"evaluation.therapist.{setting}"])
