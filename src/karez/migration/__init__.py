"""CUDA to NPU: scan, rewrite, verify.

Empty until migration arrives. It will stand alone: no server needed, and it will never touch a
repository without being asked.
"""
