"""Hypothesis without its deadline: how long an example takes says nothing about the code."""

from hypothesis import settings

settings.register_profile("house", deadline=None)
settings.load_profile("house")
