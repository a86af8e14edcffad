"""karez: an AI compute cloud that its owner runs."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("karez")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "0"


def __getattr__(name: str) -> Any:
    """`karez.Client` and `karez.AsyncClient`, imported on first use."""
    if name in ("Client", "AsyncClient"):
        from karez.client import sdk  # noqa: PLC0415 - importing karez stays cheap

        return getattr(sdk, name)
    raise AttributeError(name)
