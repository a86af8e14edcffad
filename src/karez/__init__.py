"""karez: an AI compute cloud that its owner runs."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`karez.Client`, `karez.AsyncClient` and `karez.__version__`, worked out on first use."""
    if name in ("Client", "AsyncClient"):
        from karez.client import sdk  # noqa: PLC0415 - importing karez stays cheap

        return getattr(sdk, name)
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - as above

        return version("karez")
    raise AttributeError(name)
