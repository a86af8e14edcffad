"""Making room: preemption and quota reclaim, elastic scale-up and scale-down, defragmentation.

Each function proposes a plan with its cost; the engine decides whether to carry it out.
"""
