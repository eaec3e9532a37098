import os
import sys
import tempfile
from pathlib import Path

import hypothesis

# Shared test servers; the repository root itself must not be on the path (kernels/ and eval/ lie there).
sys.path.insert(0, str(Path(__file__).parent / "shared"))

# Tokenized corpora of tests stay out of the user's own cache. Processes that tests start inherit this.
_CACHE = tempfile.TemporaryDirectory(prefix="cbtrain-test-cache-")
os.environ["CBTRAIN_CACHE"] = _CACHE.name

# The same few examples every time where a person waits; many, drawn anew, with `make test-deep`.
_PATIENT = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("few", max_examples=25, derandomize=True, **_PATIENT)
hypothesis.settings.register_profile("many", max_examples=1000, **_PATIENT)
hypothesis.settings.load_profile("few")

FIRST = ("tests/study", "tests/training", "tests/providers/test_faults.py")
"""What takes longest begins first, so that no core is idle at the end."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: not item.nodeid.startswith(FIRST))
