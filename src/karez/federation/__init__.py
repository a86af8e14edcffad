"""Sites and edge: clouds that work as one.

Empty until federation arrives. It will move workloads between sites, never state behind a
site's back.
"""
