"""The typed HTTP client: the Python SDK. The CLI and the console speak only through it.

Sync and async with the same words. It imports only core, raises the errors of core, and holds no
logic of the cloud.
"""
