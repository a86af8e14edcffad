"""Programs over the client that the CLI and Python users share: chaos runs, remote verification.

An experiment submits jobs, watches them and reports figures. It knows the API only.
"""
