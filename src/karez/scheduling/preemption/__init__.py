"""Plans that free devices: preemption, quota reclaim, elastic scaling, defragmentation.

Each module proposes a plan with its cost; the engine decides whether to carry the plan out.
"""
