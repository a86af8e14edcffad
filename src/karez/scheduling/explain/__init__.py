"""Explanations: why a workload waits, what would start it, and what a change would do.

Everything runs on copies of the cluster state; nothing here changes a decision.
"""
