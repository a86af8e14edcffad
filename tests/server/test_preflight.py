"""What a cloud cannot start with is said before it starts."""

from pathlib import Path

import pytest

from karez.core.errors import BadRequest
from karez.core.settings import resolve
from karez.server.processes.preflight import check_host
from tests.ports import free_port


@pytest.mark.parametrize("name", ["port", "gateway_port", "ray_port"])
def test_a_port_of_rays_own_processes_is_refused_with_the_range(name: str, tmp_path: Path) -> None:
    ports = {"port": free_port(), "gateway_port": free_port(), "ray_port": free_port()}
    wrong = resolve("", {}, {**ports, name: 17_079})[0]
    with pytest.raises(BadRequest, match=f"(?i){name} is 17079, and .* listen on 10001 to 19999"):
        check_host(wrong, tmp_path)
    twice = resolve("", {}, {**ports, "port": ports["gateway_port"]})[0]
    with pytest.raises(BadRequest, match="as another port of this cloud"):
        check_host(twice, tmp_path)
