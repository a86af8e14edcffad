"""Byte layouts between a node's processes: frames on sockets, snapshots and status in memory.

The runtime writes and the drivers read, or the other way round. This room knows the layouts only,
and nothing of gangs, recovery or torch.
"""
