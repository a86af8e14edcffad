"""Placement of a gang: free capacity as arrays, node scores, and the choice of nodes.

This package places one gang on free devices; it never preempts and knows no queue.
"""
