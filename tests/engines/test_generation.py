"""What requests ask of a model without a server of its own."""

import json
from typing import Any

import pytest

from karez.engines.generation import Asked, BadField, asked_of


def asked(has_schemas: bool = True, **body: Any) -> Asked:
    return asked_of(body, [1, 2, 3], context=16, adapter="", has_schemas=has_schemas)


def test_the_shortest_limit_holds_and_the_context_does_too() -> None:
    assert asked().most == 13
    assert asked(max_tokens=5, max_completion_tokens=4).most == 4
    assert asked(max_tokens=100).most == 13
    assert asked_of({}, [1] * 15, context=16, adapter="a", has_schemas=False).most == 1


def test_what_changes_no_answer_is_ignored() -> None:
    found = asked(user="me", frequency_penalty=0.0, logprobs=False, n=1, stream=True)
    assert found == Asked(tokens=[1, 2, 3], most=13)


def test_settings_are_read() -> None:
    found = asked(temperature=0, top_p=0.5, top_k=40, seed=-7, stop="x", ignore_eos=True)
    assert (found.temperature, found.top_p, found.top_k, found.seed) == (0.0, 0.5, 40, -7)
    assert found.stops == ("x",)
    assert found.ignores_end


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"logprobs": True}, "no logprobs"),
        ({"n": 2}, "n is 1"),
        ({"temperature": "hot"}, "temperature is a number"),
        ({"temperature": True}, "temperature is a number"),
        ({"temperature": -1}, "between 0.0 and 100.0"),
        ({"temperature": float("nan")}, "between 0.0 and 100.0"),
        ({"max_tokens": 0}, "max_tokens is between 1"),
        ({"max_tokens": 1.5}, "max_tokens is between 1"),
        ({"stop": [1]}, "stop is a text"),
        ({"stop": [""]}, "stop is a text"),
        ({"stop": ["x"] * 17}, "at most 16"),
        ({"response_format": {"type": "xml"}}, "response_format is"),
        ({"response_format": "json"}, "response_format is"),
        ({"response_format": {"type": "json_schema", "json_schema": 1}}, "response_format is"),
    ],
)
def test_what_cannot_be_kept_to_is_refused_in_words(body: dict[str, Any], said: str) -> None:
    with pytest.raises(BadField, match=said):
        asked(**body)


def test_a_prompt_that_fills_the_context_is_refused() -> None:
    with pytest.raises(BadField, match="16 tokens, and the context of this model is 16"):
        asked_of({}, [1] * 16, context=16, adapter="", has_schemas=False)


def test_a_prompt_without_tokens_is_refused() -> None:
    with pytest.raises(BadField, match="prompt is empty"):
        asked_of({}, [], context=16, adapter="", has_schemas=False)


def test_schemas_go_to_models_that_keep_to_them() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert json.loads(asked(response_format=form).schema) == schema
    assert json.loads(asked(response_format={"type": "json_object"}).schema) == {"type": "object"}
    assert asked(response_format={"type": "text"}).schema == ""
    with pytest.raises(BadField, match="keeps to no JSON schema"):
        asked(has_schemas=False, response_format=form)
