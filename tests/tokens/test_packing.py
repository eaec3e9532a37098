import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cbtrain.tokens.chat import Document
from cbtrain.tokens.packing import IGNORED, build_pack, plan_packs
from cbtrain.tokens.stream import PackStream


def document(name, length, start=0):
    ids = np.arange(start, start + length, dtype=np.int32)
    return Document(name, ids, ids % 3 == 0)


@given(st.lists(st.integers(1, 130), min_size=1, max_size=80), st.integers(1, 100))
def test_plan_holds_every_document_once_within_capacity(lengths, capacity):
    packs = plan_packs(lengths, capacity)
    assert sorted(i for pack in packs for i in pack) == list(range(len(lengths)))
    for pack in packs:
        total = sum(lengths[i] for i in pack)
        assert total <= capacity or len(pack) == 1
    # Best fit leaves no two packs that could have been one.
    fills = sorted(sum(lengths[i] for i in pack) for pack in packs)
    assert len(fills) < 2 or fills[0] + fills[1] > capacity


def test_best_fit_takes_the_tightest_gap():
    assert plan_packs([6, 5, 4, 3, 2], 10) == [[0, 2], [1, 3, 4]]


def test_pack_layout_never_predicts_across_documents():
    pack = build_pack([document("a", 4, 0), document("b", 3, 6)])
    assert pack.input_ids.tolist() == [0, 1, 2, 3, 6, 7, 8]
    assert pack.labels.tolist() == [IGNORED, IGNORED, 3, IGNORED, IGNORED, IGNORED, IGNORED]
    assert pack.position_ids.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert pack.cu_seqlens == [0, 4, 7]
    assert (pack.supervised, pack.tokens, pack.names) == (1, 7, ["a", "b"])


def test_stream_shows_every_document_once_an_epoch_and_resumes_anywhere():
    documents = [document(str(i), 3 + i % 7) for i in range(23)]
    stream = PackStream(documents, 16, seed=4)
    iterator = iter(stream)
    seen, states = [], []
    for _ in range(40):
        states.append(stream.state())
        seen.append(next(iterator).names)
    first_epoch = [name for names, state in zip(seen, states, strict=True) if state["epoch"] == 0 for name in names]
    assert sorted(first_epoch, key=int) == [d.name for d in documents]
    assert seen[: states.index({"epoch": 1, "index": 0})] != seen[states.index({"epoch": 1, "index": 0}) :][:9]
    for at in (0, 3, 11, 25):
        other = PackStream(documents, 16, seed=4)
        other.load_state(states[at])
        resumed = iter(other)
        assert [next(resumed).names for _ in range(10)] == seen[at : at + 10]
    assert [p.names for p, _ in zip(PackStream(documents, 16, seed=5), range(10), strict=False)] != seen[:10]
