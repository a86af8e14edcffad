"""Performance on NPUs: what a profile shows to be slow, and what the source says will be.

Reads files only; it neither runs nor rewrites code.
"""
