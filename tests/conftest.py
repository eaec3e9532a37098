import sys
from pathlib import Path

# Shared test servers; the repository root itself must not be on the path (kernels/ and eval/ lie there).
sys.path.insert(0, str(Path(__file__).parent / "shared"))
