"""Modules of karez 0.1 that scripts import; they are `karez.runtime` now, and go with karez 0.3.

Each warns with DeprecationWarning and hands on the names of the documentation, nothing else.
"""
