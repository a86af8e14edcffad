"""Reports of a scan: JSON, SARIF and an HTML page.

Reports are values and texts: nothing here writes a file.
"""
