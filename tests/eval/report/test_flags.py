"""What a session is flagged for, at and beside each threshold."""

from dataclasses import replace

import pytest

from cbtrain.eval.report.flags import FLAGS, FlagInput, Range, flags_of

SCALE = Range(0, 6, 40)
PLAIN = FlagInput(
    ending="patient_end", failed=False, turns=6, domains=[3.0] * 11, rated=True, total=33.0, totals=[33.0, 33.0]
)


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({}, []),
        ({"turns": 5}, ["short"]),
        ({"ending": "max_turns"}, ["stopped_by_limit"]),
        ({"ending": "max_words"}, ["stopped_by_limit"]),
        ({"ending": "context_limit"}, ["stopped_by_limit"]),
        ({"ending": "repetition"}, []),
        ({"total": 39.99}, []),
        ({"total": 40.0}, ["at_or_above_cutoff"]),
        ({"total": 40.0 - 1e-12}, ["at_or_above_cutoff"]),  # what severities leave behind
        ({"domains": [6.0] * 5 + [3.0] * 6}, []),
        ({"domains": [6.0] * 6 + [3.0] * 5}, ["at_ceiling"]),
        ({"domains": [5.99] * 11}, []),
        ({"domains": [0.0] * 5 + [0.01] * 6}, []),
        ({"domains": [0.0] * 6 + [3.0] * 5}, ["at_floor"]),
        ({"domains": [0.0, 0.0, 6.0, 6.0]}, ["at_floor", "at_ceiling"]),
        ({"totals": [30.0, 40.99]}, []),
        ({"totals": [30.0, 35.0, 41.0]}, ["ratings_disagree"]),
        ({"refused": True}, ["refusal"]),
        ({"marks": ["other_speaker_cut", "thinking_removed"]}, ["thinking_removed", "other_speaker_cut"]),
        ({"marks": ["speaks_for_patient"]}, ["speaks_for_patient"]),
        ({"marks": ["drift_first", "drift"]}, ["drift"]),
        (
            {
                "ending": "provider_error",
                "failed": True,
                "turns": 2,
                "domains": [None] * 11,
                "rated": False,
                "total": None,
                "totals": [],
            },
            ["failed", "not_rated", "short"],
        ),
        # Scores in some domains make no total; nothing is said of the scale's ends.
        ({"domains": [0.0] * 10 + [None], "rated": False, "total": None, "totals": []}, ["not_rated"]),
        (
            {"ending": None, "turns": 0, "domains": [], "rated": False, "total": None, "totals": []},
            ["not_rated"],
        ),  # no transcript
    ],
)
def test_a_flag_is_raised_from_its_threshold_on(changes, flags):
    assert flags_of(replace(PLAIN, **changes), SCALE) == flags


def test_a_scale_without_cut_off_calls_nothing_competent():
    assert flags_of(replace(PLAIN, total=66.0), Range(0, 6)) == []


def test_flags_are_told_apart():
    assert len({flag.id for flag in FLAGS}) == len({flag.name for flag in FLAGS}) == len(FLAGS)
