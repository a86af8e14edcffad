"""Keys, encryption, erasure, watermarks, audit: whatever protects data.

Today it seals secrets. It never decides who may see what; that is the role check at the routes.
"""
