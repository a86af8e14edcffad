"""`karez migrate`: scan, rewrite, verify and convert, offline. One module per command group.

The rooms migration, equivalence, checkpoints and tuning do the work; a cloud is needed only by
`karez migrate verify --on`.
"""
