"""A target of accuracy without rows to choose a threshold on is refused before anything is made."""

from pathlib import Path

import pytest

from karez.client.sdk import Client
from karez.client.studio import Studio
from karez.client.studio_plan import StudioPlan
from karez.core.errors import BadRequest
from tests.api import Api
from tests.tiny_chat import write_rows


def test_chat_rows_without_validation_rows_are_refused(api: Api, url: str, tmp_path: Path) -> None:
    plan = StudioPlan(path=write_rows(tmp_path / "rows"), name="desk", target_accuracy=0.9)
    with Client(url, api.admin) as client:
        with pytest.raises(BadRequest, match="needs validation rows"):
            Studio(client=client, plan=plan).run()
        assert client.artifacts() == []
        assert client.jobs() == []


def test_a_plan_that_keeps_no_validation_rows_is_refused() -> None:
    with pytest.raises(BadRequest, match="needs validation rows"):
        StudioPlan(
            path=Path("a.csv"), name="desk", target_accuracy=0.9, data_settings={"validation": 0.0}
        )


@pytest.mark.parametrize("target", [1.0, -0.1, 98])
def test_a_target_is_a_share(target: float) -> None:
    with pytest.raises(BadRequest, match="share below 1"):
        StudioPlan(path=Path("a.csv"), name="desk", target_accuracy=target)
