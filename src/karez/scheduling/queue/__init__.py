"""The queue: its order, the fair share between projects, and their quotas.

This package never looks at free devices; placement does.
"""
