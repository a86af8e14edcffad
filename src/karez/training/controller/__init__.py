"""The job controller: one thread per job that carries out what the recovery protocol decides.

The controller starts, messages and ends processes through core.ports.Fabric and records status in
the store. It can be killed at any moment: the next controller adopts the running processes.
"""
