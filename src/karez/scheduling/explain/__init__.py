"""Answers about decisions: why a workload waits, what would start it, what a change would do.

Everything runs on copies of the cluster state; nothing here changes a decision.
"""
