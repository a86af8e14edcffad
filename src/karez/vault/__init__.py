"""Keys and encryption: API keys, sealed secrets, and the key that signs receipts.

This room never decides who may see what: the role check at the API routes does.
"""
