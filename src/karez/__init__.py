"""karez: an AI compute cloud that its owner runs."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`karez.Client`, `AsyncClient`, `JobSpec`, `gang` and `__version__`, on first use."""
    if name in ("Client", "AsyncClient"):
        from karez.client import sdk  # noqa: PLC0415 - importing karez stays cheap

        return getattr(sdk, name)
    if name == "JobSpec":
        from karez.core.workloads import JobSpec  # noqa: PLC0415 - as above

        return JobSpec
    if name == "gang":
        from karez.core.gang_syntax import make_gang  # noqa: PLC0415 - as above

        return make_gang
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - as above

        return version("karez")
    raise AttributeError(name)
