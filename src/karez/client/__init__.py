"""The typed HTTP client: the Python SDK. The CLI and the console speak only through it.

The sync and the async client have the same methods. The room imports only core, raises the errors
of core, and holds no logic of the cloud.
"""
