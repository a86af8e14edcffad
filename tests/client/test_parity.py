"""Both clients have the same methods, and the package exports what it says."""

import inspect
import subprocess
import sys

import pytest

import karez
from karez import training
from karez.client import access_calls, calls, pool_calls
from karez.client.calls import Call
from karez.client.sdk import AsyncClient, Client

INSIDE = {"put_blob", "missing_blobs", "save_artifact_file"}
"""Calls that only `upload` and `download` send."""
STREAMS = {"follow_logs"}
PLAIN = {"ask", "run", "stream", "bind", "bind_stream", "address"}
"""Attributes of a client that are not calls of the API."""


def surface(client: Client | AsyncClient) -> set[str]:
    return {name for name in dir(client) if not name.startswith("_")} - PLAIN


@pytest.fixture
def clients() -> tuple[Client, AsyncClient]:
    return Client("http://cloud", "k"), AsyncClient("http://cloud", "k")


def test_both_clients_have_the_same_methods_and_signatures(
    clients: tuple[Client, AsyncClient],
) -> None:
    sync, later = clients
    assert surface(sync) == surface(later)
    for name in surface(sync):
        one, other = getattr(sync, name), getattr(later, name)
        assert inspect.signature(one) == inspect.signature(other), name
        assert one.__doc__ == other.__doc__, name
        assert one.__doc__, name
        assert not inspect.iscoroutinefunction(one), name
        assert inspect.iscoroutinefunction(other) == (name not in STREAMS), name
    with sync:
        assert surface(sync) >= {"upload", "wait", "wait_ready", "follow_logs", "submit"}


def test_every_call_of_the_api_is_a_method(clients: tuple[Client, AsyncClient]) -> None:
    made = {
        name
        for module in (calls, pool_calls, access_calls)
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and str(inspect.signature(value).return_annotation).startswith(
            f"{Call.__module__}.{Call.__name__}["
        )
    }
    assert len(made) > 40
    assert made - INSIDE <= surface(clients[0])
    one = inspect.signature(clients[0].job)
    assert list(one.parameters) == ["ident"]
    assert one.return_annotation.__name__ == "Job"


def test_what_the_package_exports() -> None:
    words = "ArtifactKind AsyncClient Client JobSpec ServiceSpec State WorkloadKind"
    assert karez.__all__ == [*words.split(), "__version__", "errors", "gang"]
    assert training.__all__ == ["Run", "micro_batches", "session"]
    for name in karez.__all__:
        assert getattr(karez, name) is not None
        assert name in dir(karez)
    assert karez.Client is Client
    assert issubclass(karez.errors.NotFound, karez.errors.KarezError)
    with pytest.raises(AttributeError, match="no attribute 'Clint'"):
        karez.Clint  # type: ignore[attr-defined]  # a wrong name  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'sesion'"):
        training.sesion  # type: ignore[attr-defined]  # a wrong name  # noqa: B018


def test_importing_the_package_imports_nothing_that_is_slow() -> None:
    code = (
        "import sys, karez; from karez import training\n"
        "print([m for m in ('httpx', 'pydantic', 'torch', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
