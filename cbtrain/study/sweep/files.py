"""Names of the files in a sweep's folder, beside the folders of its runs. Torch-free."""

SWEEP = "sweep.yaml"
"""What is common and what differs, as it was resolved: the command continues with it."""

RESULTS, TABLE = "sweep.json", "sweep.csv"
FIGURE = "validation"
"""Validation losses over tokens, as .svg and .png."""

NOTES = ".notes"
"""Folder of what is known of runs beside their own folders: failures, losses on common sessions."""

LOCK = ".lock"

RESERVED = (SWEEP, RESULTS, TABLE, f"{FIGURE}.svg", f"{FIGURE}.png", NOTES, LOCK)
