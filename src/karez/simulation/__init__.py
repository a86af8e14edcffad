"""A trace in, the real decisions and what they came to out.

It calls scheduling's functions as they are, never copies of them: what a simulation says holds
for the live cloud. Pure: readers take lines of text, chance comes from a seed, time from the
trace. It never opens a file and never touches the cloud.
"""
