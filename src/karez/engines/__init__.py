"""Inference engines behind core.ports.Engine, and their processes on nodes.

An engine is a record of what it can do and a command. Its process loads a model on the device that
it was granted, and answers OpenAI's API on its node's address to whoever shows the cloud's key for
engines: it never sees the keys of users. `openai_server` is the HTTP of engines that have none.
"""
