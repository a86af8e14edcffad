"""What a person does with models: catalogue, data sets, recipes, evaluation.

catalogue.py and recipes' settings are read by control; the recipes themselves run on nodes as
jobs and are the only part that imports torch. It never talks to the store.
"""
