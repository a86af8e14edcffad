"""Whether two runs compute the same: records of both, compared module by module, certified.

`run` executes a script under the recorder, `compare` judges two records, `certificate` signs the
result. torch is imported only by the recorder, inside the recorded process. It rewrites nothing
(migration) and needs no cloud.
"""
