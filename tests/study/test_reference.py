"""The base's log-probabilities of pairs, as they are kept in files."""

from __future__ import annotations

import io

import numpy as np
from rich.console import Console

from cbtrain.study import reference

FOUND = [np.array([[-1.5, -2.0], [-3.0, -0.5]]), np.array([[-4.0, -1.0], [-2.5, -8.0]])]
STORES = [range(2), range(2)]


def test_a_damaged_file_is_not_read_and_stops_nothing(tmp_path):
    place = tmp_path / reference.NAME
    reference._write(place, "key", FOUND, Console())
    whole = place.read_bytes()
    read = reference._read(place, "key", STORES)
    assert read is not None
    assert np.array_equal(read, FOUND)
    assert reference._read(place, "other pairs", STORES) is None
    assert reference._read(place, "key", [range(2), range(3)]) is None

    array = io.BytesIO()
    np.save(array, FOUND[0])
    changed = [whole[:at] + bytes([value]) + whole[at + 1 :] for at in range(len(whole)) for value in (0, 8, 255)]
    for content in (b"", array.getvalue(), *(whole[:length] for length in range(0, len(whole), 7)), *changed):
        place.write_bytes(content)
        read = reference._read(place, "key", STORES)
        assert read is None or np.array_equal(read, FOUND), content
