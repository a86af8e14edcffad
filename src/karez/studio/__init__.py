"""Models for users: catalogue, data sets, recipes and evaluation.

catalogue.py and recipes' settings are read by control; the recipes themselves run on nodes as
jobs and are the only part that imports torch. The room never talks to the store.
"""
