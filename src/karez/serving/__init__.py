"""Models behind an OpenAI-compatible gateway: replicas kept alive, requests routed and counted.

replicas.py keeps engines running, gateway.py is the data plane and lives on when control
restarts. It never trains and never places.
"""
