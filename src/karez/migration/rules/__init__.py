"""Rules for constructs that are bound to CUDA: one small class each.

`catalogue` lists all rules in order of precedence. The docstring of a rule is the reason that
reports and `karez migrate rules` show to users. Rules only propose edits: they never write a file.
"""
