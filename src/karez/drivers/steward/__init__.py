"""The node agent, called the steward, and the processes it consists of.

The fork server starts processes with torch imported, the replica server holds training state in
memory, staging copies inputs and collects outputs. The agent passes messages on and never reads
them.
"""
