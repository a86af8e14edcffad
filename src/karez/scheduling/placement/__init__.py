"""Where a gang fits: free capacity as arrays, node scores, and the choice of nodes.

It places one gang on what is free; it never preempts (preemption) and knows no queue.
"""
