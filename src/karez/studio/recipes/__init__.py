"""Jobs that come with karez: import, fine-tune, evaluate, convert.

Each module has a main() that runs on a node, reads its inputs from folders and leaves its results
in folders with a card. Settings are checked in studio.settings before the job is queued.
"""
