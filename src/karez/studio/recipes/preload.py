"""Preload of fork servers: imports what ranks of recipes need. Starts no thread."""

import importlib
import pkgutil

import torch

import karez.runtime.preload
import karez.studio.recipes
from karez.core.codec import prepare
from karez.runtime.preload import after_fork
from karez.studio.settings import RECIPES

__all__ = ["after_fork"]

for _found in pkgutil.iter_modules(karez.studio.recipes.__path__):
    if _found.name != "preload":
        importlib.import_module(f"karez.studio.recipes.{_found.name}")
for _recipe in RECIPES.values():
    prepare(_recipe.settings)

torch.set_num_threads(1)  # a pool of threads would not survive the fork
if karez.runtime.preload.may_compute():
    _layer = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Dropout(0.5))
    _optimizer = torch.optim.AdamW(_layer.parameters())
    _layer(torch.ones(1, 4)).sum().backward()  # what torch sets up at its first step: 15 ms
    _optimizer.step()
    _optimizer.state_dict()
