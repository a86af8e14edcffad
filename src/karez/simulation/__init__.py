"""Simulations of scheduling and recovery, with the production code and simulated time.

They call the functions of scheduling and recovery as they are, never copies of them: results hold
for the live cloud. Pure: readers take lines of text, chance comes from a seed, time from the
trace. The room never opens a file and never touches the cloud.
"""
