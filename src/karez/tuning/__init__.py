"""Profiles, fused operators, autotuning.

Empty until tuning arrives. It will stand alone: no server needed.
"""
