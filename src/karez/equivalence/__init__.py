"""Equivalence of two runs: both recorded, compared module by module, and certified.

`run` executes a script under the recorder, `compare` judges two records, `certificate` signs the
result. torch is imported only by the recorder, inside the recorded process. The room rewrites
nothing (migration) and needs no cloud.
"""
