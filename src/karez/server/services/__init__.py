"""What routes call: jobs, services, artifacts, access, the pool and recoveries, for a principal.

A service checks who may do it, calls the store or a controller, and returns a noun. It holds no
thread and never talks to a node except through core.ports.
"""
