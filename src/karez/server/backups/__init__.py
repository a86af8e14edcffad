"""Backups of a whole cloud, and clouds made of them."""
