"""Guardrails of a project on the command line."""

import json
from pathlib import Path

from karez.core.call_limits import MinuteLimits
from karez.core.services import Service, ServiceSpec
from karez.core.workloads import WorkloadId
from karez.server.services.gateway_table import build_gateway_table
from tests.api import Api
from tests.cli.conftest import Karez

FILE = '[[guardrail]]\nname = "personal"\naction = "mask"\npatterns = ["email", "card"]\n'


def test_guardrails_are_set_shown_and_kept(api: Api, karez: Karez, tmp_path: Path) -> None:
    file = tmp_path / "guardrails.toml"
    file.write_text(FILE)
    assert "no guardrails" in karez("projects", "guardrails", "default").out
    shown = karez("projects", "guardrails", "default", "--file", str(file)).out
    assert "personal" in shown
    assert "email, card" in shown
    karez("projects", "quota", "default", "cpu=4")
    karez("projects", "limits", "default", "--queued", "7", "--requests-per-minute", "9")
    (kept,) = json.loads(karez("projects", "guardrails", "default", "--json").out)
    assert (kept["name"], kept["action"], kept["side"]) == ("personal", "mask", "both")
    spec = ServiceSpec(name="chat", model="m", calls=MinuteLimits(tokens_per_minute=5))
    api.cloud.store.workloads.add_service(Service(id=WorkloadId("svc-1"), spec=spec))
    (route,) = build_gateway_table(api.cloud.store, api.cloud.clock.now(), {}).routes
    assert [one.name for one in route.guardrails] == ["personal"]
    assert (route.project_calls.requests_per_minute, route.calls.tokens_per_minute) == (9, 5)
    file.write_text('[[guardrail]]\nname = "a"\n')
    wrong = karez("projects", "guardrails", "default", "--file", str(file))
    assert (wrong.code, "has patterns, words, characters or a model" in wrong.err) == (2, True)
    file.write_text('[[guardrail]]\nname = "harm"\nmodel = "guard"\n')
    asked = karez("projects", "guardrails", "default", "--file", str(file)).out
    assert "what guard does not allow" in asked
    gone = karez("projects", "guardrails", "default", "--file", str(tmp_path / "none"))
    assert (gone.code, "No such file" in gone.err) == (2, True)
    assert "no guardrails" in karez("projects", "guardrails", "default", "--clear").out
