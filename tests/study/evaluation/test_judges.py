"""Several judges and instruments in one evaluation: added later, in turns, wrong in every way at once."""

import csv
import json
from collections import Counter

import pytest
import yaml
from command import cbtrain
from judge_requests import turns_read
from loopback import background, completion
from study_files import words_for, write_study

from cbtrain.config.loading import load_config
from cbtrain.errors import UserError
from cbtrain.eval.human_rating.key import read_key
from cbtrain.eval.rating.families import family_of
from cbtrain.study.evaluation.judges import jury_of
from cbtrain.study.evaluation.scores import human_table, rubric_for

ALLIANCE = {
    "name": "Mine", "minimum": 1, "maximum": 5, "step": 0.5,
    "domains": [
        {"name": "Warmth", "subscale": "bond", "anchors": {1: "cold", 3: "kind", 5: "warm"}},
        {"name": "Strain", "subscale": "bond", "reversed": True, "anchors": {1: "none", 5: "open conflict"}},
        {"name": "Goals", "subscale": "work", "weight": 2},
    ],
}  # fmt: skip


class Apis:
    """Therapists, patient and judges behind one server; each judge has a level of its own. ``asked`` counts requests by
    model."""

    def __init__(self):
        self.asked = Counter()

    def __call__(self, number, body):
        model = body["model"]
        self.asked[model] += 1
        if not model.startswith("judge"):
            return completion(f"{words_for(body)} What do you make of that?" if "arm" in model else words_for(body))
        turns_read(body)
        domains = body["response_format"]["json_schema"]["schema"]["properties"]
        points = {name: kind["properties"]["score"]["enum"][:-1] for name, kind in domains.items()}
        place = {"judge-gpt-4": 2, "judge-claude": 4, "judge-llama": 3}[model]
        place += len(turns_read(body)[1][1]) % 2  # not all sessions alike
        rating = {"evidence": [{"turn": 1, "quote": turns_read(body)[0][1][:12]}], "reason": "so"}
        return completion(json.dumps({name: {**rating, "score": values[place]} for name, values in points.items()}))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder, apis = tmp_path_factory.mktemp("jury"), Apis()
    (folder / "mine.yaml").write_text(yaml.safe_dump(ALLIANCE))
    with background(apis) as script:
        provider = {"base_url": script.url, "backoff_s": 0.01}
        arms = {f"x-{name}": {"provider": {**provider, "model": f"arm-gpt-{name}"}} for name in ("untuned", "tuned")}

        def evaluate(out, *settings, judges=None, **evaluation):
            entries = {
                name: {**settings_, **({"provider": {**provider, "model": model}} if model else {})}
                for name, (model, settings_) in (judges or {}).items()
            }
            write_study(folder / "study.yaml", arms, script.url, judges=entries, max_turns=4, **evaluation)
            return cbtrain("evaluate", "study.yaml", "--out", out, *settings, cwd=folder)

        yield folder, apis, evaluate


FIRST = {"gpt": ("judge-gpt-4", {"repeats": 2})}
ALL = {
    **FIRST,
    "claude": ("judge-claude", {"temperature": 0.7}),
    "cues": (None, {"rater": "cue", "beside": True}),
    "alliance": ("judge-claude", {"rubric": "mine.yaml"}),
}


def test_judges_are_added_without_asking_anything_again_and_each_says_its_own(study):
    folder, apis, evaluate = study
    done = evaluate("run", judges=FIRST)
    assert done.returncode == 0, done.stderr
    assert "judge gpt is of the same family (OpenAI's models) as therapist x-untuned, therapist x-tuned" in done.stdout
    sessions = apis.asked["judge-gpt-4"] // 2
    assert sessions == 6
    before = apis.asked.copy()
    done = evaluate("run", judges=ALL)
    assert done.returncode == 0, done.stderr
    assert apis.asked - before == {"judge-claude": 2 * sessions}
    rows = list(csv.DictReader((folder / "run/scores.csv").open()))
    assert Counter(row["judge"] for row in rows) == {"gpt": 12, "claude": 6, "cues": 6}
    mine = list(csv.DictReader((folder / "run/scores.mine.csv").open()))
    assert [row["judge"] for row in mine] == ["alliance"] * 6
    row = mine[0]
    total = float(row["warmth"]) + (6 - float(row["strain"])) + 2 * float(row["goals"])
    assert float(row["total"]) == total
    assert yaml.safe_load((folder / "run/rubric.mine.yaml").read_text())["step"] == 0.5
    report = json.loads((folder / "run/report.json").read_text())
    panel = report["analysis"]["panel"]
    assert (sorted(panel["judges"]), panel["beside"]) == (["claude", "gpt"], ["cues"])
    assert [own["judge"] for own in report["analysis"]["agreement"]["by_judge"]] == ["claude", "cues", "gpt"]
    (other,) = report["instruments"]
    assert (other["scale"]["name"], other["scale"]["total_min"], other["scale"]["total_max"]) == ("Mine", 4, 20)
    assert {row["subscale"] for row in other["analysis"]["subscales"]} == {"bond", "work"}
    assert set(report["prompts"]) >= {"judge gpt", "judge claude", "judge alliance"}
    deviations = " ".join(report["deviations"])
    assert "judges.claude was nothing" in deviations
    page = (folder / "run/report.html").read_text()
    assert "Other instruments" in page
    assert "Judge gpt is of the same family (OpenAI&#39;s models) as therapist x-untuned, therapist x-tuned" in page
    assert "LLM judge judge-claude" in page
    # What was kept is read again by `analyze`, without a word on the instrument.
    done = cbtrain("analyze", "run/scores.mine.csv", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["scale"]["total_max"] == 20


def test_two_judges_and_two_people_rate_one_study(study):
    """People's ratings come in later, by the primary instrument and by another; the report shows who agrees with whom."""
    folder, _, evaluate = study
    done = evaluate("people", judges=ALL)
    assert done.returncode == 0, done.stderr
    for rubric, points, table in (
        ("cbt_fidelity", (3, 4, 5), "human_scores.csv"),
        ("mine.yaml", (2, 2.5, 4), "human_scores.mine.csv"),
    ):
        forms = folder / f"forms-{table}"
        done = cbtrain("rate", "export", "people", "--rubric", rubric, "--out", str(forms), cwd=folder)
        assert done.returncode == 0, done.stderr
        filled = []
        for rater, name in enumerate(("Ann", "Ben"), 1):
            path = forms / f"rater-{rater}" / "ratings.csv"
            rows = list(csv.DictReader(path.open()))
            for place, row in enumerate(rows):
                row["rater"] = name if place == 0 else ""
                score = points[(int(row["session"].encode().hex(), 16) + rater) % 3]
                row |= {key: score for key in row if key not in ("form", "rater", "session", "note")}
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
            filled.append(str(path))
        done = cbtrain("rate", "import", *filled, "--key", str(forms / "key.json"), cwd=folder)
        assert done.returncode == 0, done.stderr
        assert (folder / "people" / table).exists()
    report = json.loads((folder / "people/report.json").read_text())  # written anew by the import
    between = [(row["kind"], row["judges"]) for row in report["analysis"]["agreement"]["between"]]
    assert between[0] == ("people", ["human: Ann", "human: Ben"])
    order = ["people", "people and judges", "judges", "all"]
    kinds = [kind for kind, _ in between]
    assert kinds == sorted(kinds, key=order.index)
    assert set(kinds) >= {"people", "people and judges", "judges"}
    assert {own["judge"] for own in report["analysis"]["agreement"]["by_judge"]} == {
        "gpt", "claude", "cues", "human: Ann", "human: Ben",
    }  # fmt: skip
    assert sorted(report["analysis"]["panel"]["judges"]) == ["claude", "gpt"]  # people change no figure of theirs
    done = evaluate("people", judges=ALL)  # nothing is asked; the other instrument now has its people, too
    assert done.returncode == 0, done.stderr
    (other,) = json.loads((folder / "people/report.json").read_text())["instruments"]
    assert sorted(other["analysis"]["judges"]) == ["alliance", "human: Ann", "human: Ben"]
    # Differences are settled by the instrument of the table, without a word on it, and go back into that table.
    done = cbtrain("rate", "adjudicate", "people/human_scores.mine.csv", "--out", "settle", cwd=folder)
    assert done.returncode == 0, done.stderr
    key = read_key(folder / "settle/key.json")
    assert human_table(folder / "people", key.rubric.digest, key.rubric.name).name == "human_scores.mine.csv"


def test_people_rate_by_the_instrument_of_the_first_judge_that_counts(tmp_path):
    judges = {"cues": {"rater": "cue", "beside": True}, "mine": {"rubric": "elsewhere/mine.yaml"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"evaluation": {"judges": judges}}))
    assert rubric_for(tmp_path / "scores.csv") == "elsewhere/mine.yaml"
    (tmp_path / "rubric.yaml").write_text(yaml.safe_dump(ALLIANCE))  # kept with the scores: found from any folder
    assert rubric_for(tmp_path / "scores.csv") == str(tmp_path / "rubric.yaml")


def test_in_turns_every_session_is_rated_once(study):
    folder, apis, evaluate = study
    before = apis.asked.copy()
    judges = {**FIRST, "claude": ALL["claude"], "llama": ("judge-llama", {})}
    judges["gpt"] = ("judge-gpt-4", {})
    done = evaluate("turns", "evaluation.allocation=cyclic", judges=judges)
    assert done.returncode == 0, done.stderr
    assert apis.asked["judge-llama"] == 2
    assert sum((apis.asked - before)[f"judge-{name}"] for name in ("gpt-4", "claude", "llama")) == 6
    report = json.loads((folder / "turns/report.json").read_text())
    assert report["analysis"]["panel"]["rotating"]
    (tuned,) = report["analysis"]["contrasts"]
    assert len(tuned["patients"]) == 3
    done = cbtrain("analyze", "turns", "--json", cwd=folder)
    again = json.loads(done.stdout)
    assert again["panel"]["rotating"]
    assert [row["estimate"] for row in again["contrasts"]] == [
        row["estimate"] for row in report["analysis"]["contrasts"]
    ]


def test_everything_that_is_wrong_with_judges_is_told_at_once(tmp_path, monkeypatch):
    monkeypatch.delenv("NO_KEY", raising=False)
    (tmp_path / "empty.yaml").write_text("name: Empty\nminimum: 0\nmaximum: 4\ndomains: []\n")
    (tmp_path / "blind.yaml").write_text("name: blind\nuser: 'Rate {{ rubric.name }}.'\n")
    (tmp_path / "cueless.yaml").write_text("name: C\nminimum: 0\nmaximum: 4\ndomains: [{id: warmth}]\n")
    api = {"base_url": "http://127.0.0.1:1", "model": "m"}
    judges = {
        "keyless": {"provider": {"preset": "openai", "model": "gpt-5", "api_key_env": "NO_KEY"}},
        "empty": {"provider": api, "rubric": str(tmp_path / "empty.yaml")},
        "blind": {"provider": api, "prompt": str(tmp_path / "blind.yaml")},
        "cueless": {"rater": "cue", "rubric": str(tmp_path / "cueless.yaml")},
        "human: Ann": {"provider": api},
        "one": {"provider": api},
        "One": {"provider": api | {"model": "other"}},
        "twin": {"provider": api},
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({"evaluation": {"judges": judges}}))
    config = load_config(str(path), [])
    with pytest.raises(UserError) as caught:
        jury_of(config.evaluation, config.providers)
    for part in (
        "NO_KEY: the LLM judge's API key is not set",
        "domains: must have a length of at least 1",
        "has no place for the transcript",
        "the cue rater cannot rate it",
        "names with 'human:' are those of people",
        "'One' and 'one' are nearly the same name",
        "'one' and 'twin' are the same rater, asked in the same way",
    ):
        assert part in str(caught.value), part
    path.write_text("evaluation:\n  judges:\n    a: {rater: cue}\n    a: {rater: llm}\n")
    with pytest.raises(UserError, match=r"study\.yaml:4: malformed YAML \(.*'a'"):
        load_config(str(path), [])
    path.write_text(yaml.safe_dump({"evaluation": {"judges": [{"name": "a", "rater": "cue"}, {"name": "a"}]}}))
    with pytest.raises(UserError, match="evaluation: two judges are called 'a'"):
        load_config(str(path), [])
    path.write_text(yaml.safe_dump({"evaluation": {"judges": [{"name": "a", "rater": "cue"}]}}))
    assert load_config(str(path), []).evaluation.judges["a"].rater == "cue"
    config = load_config(None, ["evaluation.judges={a: {rater: cue}}", "evaluation.allocation=cyclic"])
    with pytest.raises(UserError, match="no two judges by one instrument could take turns"):
        jury_of(config.evaluation, config.providers)


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("gpt-4.1-mini", "OpenAI's"),
        ("o3", "OpenAI's"),
        ("claude-sonnet-4", "Anthropic's"),
        ("meta-llama/Llama-3.1-8B-Instruct", "Meta's Llama"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "Alibaba's Qwen"),
        ("mistralai/Mistral-7B-v0.3", "Mistral's"),
        ("my-own-model", ""),
    ],
)
def test_families_of_models_are_known_by_their_names(model, family):
    assert family_of(model) == family
