import os
import sys
import tempfile
from pathlib import Path

# Shared test servers; the repository root itself must not be on the path (kernels/ and eval/ lie there).
sys.path.insert(0, str(Path(__file__).parent / "shared"))

# Tokenized corpora of tests stay out of the user's own cache. Processes that tests start inherit this.
_CACHE = tempfile.TemporaryDirectory(prefix="cbtrain-test-cache-")
os.environ["CBTRAIN_CACHE"] = _CACHE.name
