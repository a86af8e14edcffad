"""What the demo does with what an earlier one left."""

from karez.cli.remote.demo.app import LIVE, _clear
from karez.client.sdk import Client
from karez.core.jobs import JobSpec
from tests.api import Api


def test_a_demo_that_was_broken_off_is_no_hindrance_to_the_next(api: Api, url: str) -> None:
    """Its job waits or stops still: the next one of that name would be ambiguous."""
    with Client(url, api.admin) as client:
        for _ in range(2):
            client.submit(JobSpec(name="router-tune", command=("true",)))
        _clear(client)
        assert client.jobs(states=LIVE) == []
        client.submit(JobSpec(name="router-tune", command=("true",)))
        assert client.job("router-tune").spec.name == "router-tune"
