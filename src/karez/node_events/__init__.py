"""Delivery of what happens on nodes to the controllers of workloads.

One poll follows all nodes; each workload has its events in a queue of its own, and is woken. Never
here: what an event means.
"""
