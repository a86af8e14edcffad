"""Models behind an OpenAI-compatible gateway: replicas kept alive, requests routed and counted.

replica_controller.py keeps engines running, gateway.py is the data plane and keeps serving while
control restarts. This room never trains and never places.
"""
