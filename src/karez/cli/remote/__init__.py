"""Commands that speak to a cloud: parse, call the client once or twice, show the answer.

They import client, experiments and core, nothing else of karez.
"""
