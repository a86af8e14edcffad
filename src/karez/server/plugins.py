"""The plug-ins that are installed, by their entry points."""

from collections.abc import Mapping
from importlib.metadata import entry_points
from importlib.util import find_spec

from karez.core.ports import Engine


def engines() -> Mapping[str, Engine]:
    """The engines, by name."""
    return {point.name: point.load()() for point in entry_points(group="karez.engines")}


def installed_engines() -> frozenset[str]:
    """The engines whose packages this host has."""
    return frozenset(
        name
        for name, engine in engines().items()
        if all(find_spec(module) for module in engine.capabilities.modules)
    )


def recipes() -> Mapping[str, str]:
    """The recipes: name -> `module:function`."""
    return {point.name: point.value for point in entry_points(group="karez.recipes")}


def preload() -> str:
    """The module that fork servers import before they fork ranks; empty: none."""
    return next((point.value for point in entry_points(group="karez.preload")), "")
