"""Facts about Ascend: which versions go together, and which operators an NPU computes.

Tables with their sources, and the functions that read them. It probes no device (drivers) and
changes no code (migration).
"""
