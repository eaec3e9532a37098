"""The example of a method in a package of its own, as pip installs it."""

import shutil
from pathlib import Path

import tomllib
from places import ROOT

EXAMPLE = ROOT / "docs/examples/ia3"


def install_example(site: Path) -> Path:
    """Put the example into the folder ``site``, which may be on the path of modules; return ``site``."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    shutil.copy(EXAMPLE / "ia3.py", site)
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [f"{name} = {value}" for name, value in project["entry-points"]["cbtrain.methods"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[cbtrain.methods]", *lines, ""]))
    return site
