"""What the Ray fabric asks a steward for by name exists: an actor's methods have no types."""

import ast
import inspect

from karez.drivers import ray_fabric
from karez.drivers.steward.steward import Steward


def test_every_method_that_is_called_by_name_is_one_of_the_stewards() -> None:
    calls = [
        node.args[1].value
        for node in ast.walk(ast.parse(inspect.getsource(ray_fabric)))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "_call"
        and isinstance(node.args[1], ast.Constant)
    ]
    assert len(calls) >= 12
    assert [name for name in calls if not callable(getattr(Steward, str(name), None))] == []
