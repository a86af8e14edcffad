"""Conformance of transformers' architectures: what of karez works with a tiny model of each.

rows.py is what is known, and pure; the other modules make tiny models and try them, each in a
process of its own. matrix.json is the last result of all. Nothing here downloads anything.
"""
