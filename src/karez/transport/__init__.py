"""How a node's processes exchange bytes: frames on sockets, snapshots and status in shared memory.

Runtime writes, drivers read, or the other way round; this room only knows the layouts. It knows
nothing of gangs, recovery or torch.
"""
