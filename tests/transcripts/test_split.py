import json
import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbtrain.errors import UserError
from cbtrain.transcripts.config import SplitConfig
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.reading import read
from cbtrain.transcripts.split import dump_split, load_split, split
from cbtrain.transcripts.stats import gather
from cbtrain.transcripts.types import Corpus, Course, Session, Turn


def corpus(ids, sessions=None, patients=None, profiles=None):
    def own(course):
        texts = (sessions or {}).get(course, [])
        patient = (patients or {}).get(course, "")
        found = [Session(course, n, (Turn("patient", t),), patient=patient) for n, t in enumerate(texts, 1)]
        return tuple(found or [Session(course, 1, (), patient=patient)])

    return Corpus("x", "x", tuple(Course(i, own(i), (profiles or {}).get(i)) for i in ids))


def ids(side):
    return [course.id for course in side]


def sides(parts):
    return {course: side for side, members in parts.ids().items() for course in members}


def text(seed, length=200):
    draw = random.Random(seed)
    return " ".join(f"w{draw.randrange(3000)}" for _ in range(length))


names = st.lists(st.text("abcdef", min_size=1, max_size=5), min_size=3, max_size=40, unique=True)


@given(names, st.integers(0, 5), st.randoms())
def test_every_patient_stands_on_one_side_whatever_the_order_of_files(courses, seed, random):
    parts = split(corpus(courses), SplitConfig(seed=seed))
    assert all(parts.ids().values())
    assert sorted(sides(parts)) == sorted(courses) == sorted(i for part in parts.ids().values() for i in part)
    shuffled = list(courses)
    random.shuffle(shuffled)
    assert sides(split(corpus(shuffled), SplitConfig(seed=seed))) == sides(parts)


@given(st.integers(0, 50), st.integers(1, 60))
def test_courses_that_are_added_move_nobody(seed, more):
    config = SplitConfig(seed=seed)
    before = sides(split(corpus([f"p{i}" for i in range(40)]), config))
    after = sides(split(corpus([f"p{i}" for i in range(40 + more)]), config))
    if {"test", "validation"} <= set(before.values()) and Counter(before.values()).most_common()[-1][1] > 1:
        assert {course: after[course] for course in before} == before


def test_shares_hold_on_average():
    counts = Counter()
    for seed in range(50):
        counts.update(sides(split(corpus([f"p{i}" for i in range(100)]), SplitConfig(seed=seed))).values())
    assert counts["test"] / 5000 == pytest.approx(0.25, abs=0.02)
    assert counts["validation"] / 5000 == pytest.approx(0.1, abs=0.015)


def test_another_seed_is_another_split():
    patients = corpus([f"p{i}" for i in range(40)])
    assert split(patients, SplitConfig(seed=1)).ids() != split(patients, SplitConfig(seed=2)).ids()


@given(st.integers(0, 20), st.integers(3, 12), st.data())
def test_one_patients_courses_stand_together(seed, count, data):
    courses = [f"arm{a}/p{p}" for a in range(3) for p in range(count)]
    patients = {course: course.partition("/")[2] for course in courses}
    parts = split(corpus(courses, patients=patients), SplitConfig(seed=seed))
    assert len({(patients[course], side) for course, side in sides(parts).items()}) == count
    assert all(parts.ids().values())
    assert len(parts.together) == count
    # A subset of the arms has its patients on the same sides.
    alone = split(corpus(courses[:count], patients=patients), SplitConfig(seed=seed))
    assert {c: sides(parts)[c] for c in courses[:count]} == sides(alone)


@given(st.integers(0, 30))
def test_no_near_duplicate_session_stands_on_both_sides(seed):
    draw = random.Random(seed)
    courses = [f"p{i}" for i in range(12)]
    texts = {course: [text(f"{seed}{course}{n}") for n in range(2)] for course in courses}
    pairs = [draw.sample(courses, 2) for _ in range(3)]
    for one, other in pairs:
        words = texts[one][0].split()
        words[draw.randrange(len(words))] = "changed"
        texts[other].append(" ".join(words))
    parts = split(corpus(courses, texts), SplitConfig(seed=seed))
    where = sides(parts)
    assert all(where[one] == where[other] for one, other in pairs)
    assert parts.together


@given(st.integers(0, 40))
def test_every_link_counts_not_only_the_strongest(seed):
    """X is like A and like B, and A and B are strangers: the three stand together."""
    a, b = text(f"{seed}a", 300).split(), text(f"{seed}b", 300).split()
    x = a[:280] + b[:300]
    courses = {"a": [" ".join(a)], "b": [" ".join(b)], "x": [" ".join(x)]}
    courses |= {f"p{i}": [text(f"{seed}{i}")] for i in range(9)}
    parts = split(corpus(courses, courses), SplitConfig(seed=seed, near_duplicate=0.3))
    where = sides(parts)
    assert where["a"] == where["x"] == where["b"]


@given(st.integers(0, 40))
def test_a_patient_who_shares_a_course_stands_on_one_side(seed):
    courses = [Course(f"p{i}", (Session(f"p{i}", 1, ()),)) for i in range(9)]
    shared = Course("q", (Session("q", 1, (), patient="ann"), Session("q", 2, (), patient="p3")))
    where = sides(split(Corpus("x", "x", (*courses, shared)), SplitConfig(seed=seed)))
    assert where["q"] == where["p3"]


def characteristics(course, severity, engagement):
    facts = {"Symptom_Severity": severity, "Engagement_Level": engagement}
    return Profile(course=course, name=course, brief="", characteristics=facts)


@given(st.integers(0, 30))
def test_strata_are_balanced(seed):
    courses = [f"p{i}" for i in range(80)]
    profiles = {
        c: characteristics(c, ("Mild", "Severe")[i % 2], ("Low", "High")[i // 40]) for i, c in enumerate(courses)
    }
    parts = split(corpus(courses, profiles=profiles), SplitConfig(seed=seed, stratify=["severity", "engagement"]))
    assert (len(parts.test), len(parts.validation), len(parts.train)) == (20, 8, 52)
    strata = Counter(tuple(course.profile.characteristics.values()) for course in parts.test)
    assert set(strata.values()) == {5}
    assert set(Counter(tuple(c.profile.characteristics.values()) for c in parts.validation).values()) == {2}


def test_a_characteristic_that_is_missing_is_named():
    courses = ["a", "b", "c"]
    profiles = {c: characteristics(c, "Mild", "Low") for c in courses}
    with pytest.raises(UserError, match="has no characteristic 'mood'. It has Symptom_Severity, Engagement_Level"):
        split(corpus(courses, profiles=profiles), SplitConfig(stratify=["mood"]))
    with pytest.raises(UserError, match="has no characteristic 'severity'. It has no profile"):
        split(corpus(courses), SplitConfig(stratify=["severity"]))


@pytest.mark.fault("H4")
def test_a_share_of_0_is_an_empty_part():
    courses = corpus([f"p{i}" for i in range(20)])
    for config in (SplitConfig(test=0), SplitConfig(test=[]), SplitConfig(test=0, stratify=[])):
        parts = split(courses, config)
        assert not parts.test
        assert parts.train
        assert parts.validation
    assert sides(split(courses, SplitConfig(validation=0))) == {
        course: "train" if side == "validation" else side
        for course, side in sides(split(courses, SplitConfig())).items()
    }
    parts = split(corpus("a"), SplitConfig(test=0, validation=0))
    assert (ids(parts.train), parts.validation, parts.test) == (["a"], (), ())
    with pytest.raises(UserError, match="1 patient cannot be divided into two parts. Train and validation need"):
        split(corpus("a"), SplitConfig(test=0))


@pytest.mark.fault("H4")
@given(st.integers(0, 20), st.sampled_from(["validation", "test"]))
def test_a_part_with_a_file_of_its_own_is_that_file_and_what_it_shares_is_said(seed, own):
    mine, theirs = [f"p{i}" for i in range(12)], ["q1", "q2", "q3"]
    texts = {course: [text(f"{seed}{course}")] for course in (*mine, *theirs)}
    texts["q2"] = [texts["p4"][0] + " once more"]
    whole = corpus([*mine, *theirs], texts, patients={"p1": "ann", "q3": "ann"})
    parts = split(replace(whole, sides=dict.fromkeys(theirs, own)), SplitConfig(seed=seed))
    other = "test" if own == "validation" else "validation"
    assert ids(getattr(parts, own)) == theirs
    assert ids(getattr(parts, other))
    # Nobody of the corpus moves because of another part's file.
    before = sides(split(corpus(mine, texts, patients={"p1": "ann"}), SplitConfig(seed=seed, **{own: 0})))
    assert {course: sides(parts)[course] for course in mine} == before
    assert parts.leaks == (f"patient ann is in corpus.path and in corpus.{own}", "q2/1 is much like p4/1")
    assert not parts.together


@pytest.mark.fault("A3")
def test_patients_who_open_alike_are_told_of_or_joined():
    openings = {f"p{i}": text(i, 30) for i in range(12)}
    openings["p7"] = openings["p3"] + " and more"
    openings |= {"p1": "Good morning.", "p2": "Good morning."}  # says nothing about who speaks
    courses = corpus(openings)
    for course in courses.courses:
        (session,) = course.sessions
        turns = (Turn("therapist", "Hello."), Turn("patient", openings[course.id]), Turn("patient", text(course.id)))
        object.__setattr__(session, "turns", turns)
    apart = SplitConfig(test=["p3"], validation=["p1"])
    parts = split(courses, apart)
    assert parts.alike == ("p7/1 (train) opens like p3/1 (test)",)
    assert not parts.together
    joined = split(courses, apart.model_copy(update={"openings": "join"}))
    assert sides(joined)["p7"] == "test"
    assert (joined.alike, joined.together) == ((), ("p3 and p7: p7/1 opens like p3/1",))
    assert gather(courses.sessions()).counts()["repeated_openings"] == 1


def test_an_earlier_split_is_kept(tmp_path):
    courses = [f"p{i}" for i in range(12)]
    profiles = {c: characteristics(c, "Mild", "Low") for c in [*courses, *(f"q{i}" for i in range(9))]}
    config = SplitConfig(stratify=["severity"])
    before = split(corpus(courses, profiles=profiles), config)
    file = tmp_path / "split.json"
    file.write_text(dump_split(before, "x", config))
    assert load_split(file) == load_split(tmp_path) == before.ids()
    more = corpus(profiles, profiles=profiles)
    after = split(more, SplitConfig(stratify=["severity"], seed=7, keep=str(file)))
    assert {course: sides(after)[course] for course in courses} == sides(before)
    assert {sides(after)[f"q{i}"] for i in range(9)} > {"train"}
    (tmp_path / "study.json").write_text(json.dumps({"corpus": {"split": before.ids()}}))
    assert load_split(tmp_path / "study.json") == before.ids()
    (tmp_path / "split.json").write_text("{}")
    with pytest.raises(UserError, match="split.json: not a split"):
        split(more, SplitConfig(keep=str(file)))


def test_patients_can_be_named():
    parts = split(corpus("abcde"), SplitConfig(test=["b", "d"], validation=["a"]))
    assert (ids(parts.test), ids(parts.validation), ids(parts.train)) == (["b", "d"], ["a"], ["c", "e"])


def test_a_patient_listed_twice_is_held_out_once():
    parts = split(corpus("abcde"), SplitConfig(test=["b", "b"]))
    assert ids(parts.test) == ["b"]


def test_patients_who_count_as_one_are_said_to(tmp_path):
    turns = [{"role": "user", "content": "I am low since my cat died."}, {"role": "assistant", "content": "Oh."}]
    lines = [json.dumps({"patient": name, "messages": turns}) for name in "abcd"]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(UserError, match="4 patients, who count as 1 since .* cannot be divided into three parts"):
        split(read(tmp_path / "a.jsonl"), SplitConfig())


@pytest.mark.parametrize(
    ("courses", "config", "message"),
    [
        ("a", {}, "1 patient cannot be divided into three parts.*at least one"),
        ("ab", {}, "2 patients cannot be divided"),
        ("abc", {"test": ["z"]}, "split.test: no course 'z'"),
        ("abcd", {"test": ["a"], "validation": ["a"]}, "'a' is in test and in validation"),
        ("abcd", {"test": ["a", "b", "c"], "validation": ["d"]}, "no patient is left for train"),
        ("abcd", {"test": 1.5}, "1.5 is not a share"),
        ("abcd", {"test": 0.9, "validation": 0.9}, "take 180% of the patients"),
        ("abcd", {"keep": "nowhere.json"}, "nowhere.json: no such file"),
    ],
)
def test_impossible_splits_are_refused(courses, config, message):
    with pytest.raises(UserError, match=message):
        split(corpus(courses), SplitConfig(**config))


def test_a_patient_cannot_be_listed_apart():
    patients = {"a": "ann", "b": "ann"}
    with pytest.raises(UserError, match="'a' \\(test\\) and 'b' \\(validation\\) are the same patient"):
        split(corpus("abcde", patients=patients), SplitConfig(test=["a"], validation=["b"]))
