"""Environments over the API: checked when they are added, found by jobs, kept while in use."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from karez.client.sdk import Client
from karez.core.artifacts import ArtifactKind, ArtifactSpec
from karez.core.containers import LABEL
from karez.core.errors import BadRequest, NotFound
from karez.core.jobs import JobSpec
from karez.scheduling.placement.placement import place_gang
from karez.scheduling.placement.pool_builder import free_pool
from tests.api import Api
from tests.fakes import cpu_node
from tests.wheels import make_wheel


@pytest.fixture
def client(api: Api, url: str) -> Iterator[Client]:
    with Client(url, api.admin) as client:
        yield client


def test_a_job_names_an_environment_that_is_kept_while_it_waits(
    client: Client, tmp_path: Path
) -> None:
    (tmp_path / "requirements.txt").write_text("waterwheel==1.2\n")
    make_wheel(tmp_path / "wheels", "waterwheel", "1.2", "")
    mine = client.add_environment(
        tmp_path / "requirements.txt", name="mine", wheels=tmp_path / "wheels"
    )
    assert mine.spec.kind == ArtifactKind.ENVIRONMENT
    wheel = "wheels/waterwheel-1.2-py3-none-any.whl"
    assert [file.path for file in mine.spec.files] == ["requirements.txt", wheel]
    job = client.submit(JobSpec(name="j", command=("true",), environment="mine"))
    assert job.spec.environment == mine.id
    with pytest.raises(BadRequest, match="in use by j"):
        client.remove_artifact(mine.id)
    with pytest.raises(NotFound):
        client.submit(JobSpec(name="k", command=("true",), environment="other"))
    data = client.upload(tmp_path / "requirements.txt", name="d", kind=ArtifactKind.DATASET)
    with pytest.raises(BadRequest, match=r"is a dataset, no environment.*environments list"):
        client.submit(JobSpec(name="k", command=("true",), environment=data.id))


def test_an_image_needs_a_node_that_runs_images(api: Api, client: Client) -> None:
    image = JobSpec(name="i", command=("true",), image="localhost/tiny:1")
    api.cloud.store.pool.record_nodes([cpu_node("bare")], now=1.0)
    with pytest.raises(BadRequest, match=r"No node .* runs container images.*podman"):
        client.submit(image)
    api.cloud.store.pool.record_nodes([cpu_node("n", labels={LABEL: "podman"})], now=1.0)
    job = client.submit(image)
    assert job.spec.gang.among.having == (LABEL,)
    pool = free_pool(api.cloud.store.pool.nodes(), ())
    (grant,) = place_gang(job.spec.gang, pool) or ()
    assert grant.node == "n"


def test_what_no_node_could_install_is_refused_before_and_behind_the_upload(
    client: Client, tmp_path: Path
) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("numpy\n-e .\n")
    with pytest.raises(BadRequest, match=r"line 2: -e is not for a node.*pip wheel"):
        client.add_environment(file, name="mine")
    file.write_text("numpy\n")
    with pytest.raises(BadRequest, match="no wheels in"):
        client.add_environment(file, name="mine", wheels=tmp_path)
    with pytest.raises(BadRequest, match="No such file"):
        client.add_environment(tmp_path / "none.txt", name="mine")
    file.write_text("numpy\n-e .\n")
    raw = client.upload(file, name="raw", kind=ArtifactKind.DATASET).spec
    forged = replace(raw, kind=ArtifactKind.ENVIRONMENT)
    with pytest.raises(BadRequest, match="line 2"):
        client.register(forged)
    other = replace(raw.files[0], path="other.txt")
    with pytest.raises(BadRequest, match=r"has a file requirements.txt"):
        client.register(ArtifactSpec(name="x", kind=ArtifactKind.ENVIRONMENT, files=(other,)))
