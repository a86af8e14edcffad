"""Services that routes call: jobs, deployments, artifacts, access, the pool and recoveries.

A service checks permissions, calls the store or a controller, and returns a noun. It holds no
thread and never talks to a node except through core.ports.
"""
