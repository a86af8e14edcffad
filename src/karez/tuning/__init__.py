"""Performance on NPUs: hotspots of a profile, and advice from the source alone.

The room reads files only; it neither runs nor rewrites code.
"""
