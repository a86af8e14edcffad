"""Persistence protocols: what the control plane keeps, and what each way of keeping it must do.

One module for each store; `store` joins them. Each method is one short transaction, and no method
takes a decision.
"""
