"""`karez simulate`: replay traces through the production scheduler, offline.

Each module is one command. The commands read files and print reports; simulation does the work.
No cloud is needed.
"""
