"""Hypothesis without its deadline, tiers with budgets, and one core for each of two workers."""

import os

from hypothesis import settings

pytest_plugins = ["tests.budgets"]

# how long an example takes says nothing about the code
settings.register_profile("house", deadline=None)
settings.load_profile("house")

# threads of torch that wait for each other and get no core take many times as long
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
