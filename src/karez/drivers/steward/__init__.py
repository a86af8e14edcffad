"""The agent of one node and the processes it consists of.

nursery bears processes warm, keeper holds training state in memory, files lays out inputs and
gathers outputs. It passes messages on and never reads their meaning.
"""
