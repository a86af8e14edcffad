"""`karez demo`: tune a model through two kills, then chat with the tuned model.

`app` is the command and `run` its record; the other modules are the steps, in order: imports,
tuning, evaluation, serving, closing page.
"""
