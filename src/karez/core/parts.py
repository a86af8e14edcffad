"""Extras of the distribution, and which one installs a missing package."""

from collections.abc import Mapping

from karez.core.errors import MissingPart

EXTRAS: Mapping[str, frozenset[str]] = {
    "simulate": frozenset({"numpy"}),
    "migrate": frozenset({"numpy", "torch"}),
    "server": frozenset(
        {
            "aiohttp",
            "alembic",
            "anyio",
            "fastapi",
            "fsspec",
            "httptools",
            "numpy",
            "orjson",
            "prometheus_client",
            "psutil",
            "psycopg",
            "python_multipart",
            "ray",
            "regex",
            "sqlalchemy",
            "starlette",
            "structlog",
            "uvicorn",
            "uvloop",
            "xxhash",
        }
    ),
    "node": frozenset(
        {
            "gguf",
            "huggingface_hub",
            "jinja2",
            "llguidance",
            "openai",
            "peft",
            "pyarrow",
            "pynvml",
            "rensa",
            "safetensors",
            "sentencepiece",
            "torch",
            "transformers",
            "xllamacpp",
            "yaml",
        }
    ),
    "trace": frozenset({"opentelemetry"}),
    "s3": frozenset({"obstore"}),
    "fast": frozenset({"numba"}),
    "sweep": frozenset({"optuna"}),
}
"""The modules that src imports from each extra of pyproject.toml; a test compares the two."""

EXTRA_OF_COMMAND: Mapping[str, str] = {
    "karez migrate": "migrate",
    "karez join": "node",
    "karez demo": "node",
    "karezd node": "node",
    "karez up": "server",
    "training.session": "node",
    "training.Run": "node",
}
"""The extra that a command needs as a whole; it installs the shared packages too."""


def missing_part(error: ModuleNotFoundError, needed_for: str) -> MissingPart | None:
    """Name the extra that installs the module which an import did not find.

    Args:
        error: What Python raised.
        needed_for: The command that imported it, such as `karez simulate`.

    Returns:
        The error for the user; None if no extra has this module: then the fault is ours.
    """
    module = (error.name or "").partition(".")[0]
    offering = [extra for extra, modules in EXTRAS.items() if module in modules]
    if not offering:
        return None
    whole = EXTRA_OF_COMMAND.get(needed_for, offering[0])
    return MissingPart(part=module, needed_for=needed_for, install=f"pip install 'karez[{whole}]'")
