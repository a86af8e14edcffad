"""From CUDA to NPU: scan, rewrite, report. Stands alone: no server needed.

`rules` find one construct each; `analyze` applies rules to a file, `scan` to a repository, and
`rewrite` plans changes, which `file_writer` writes. `karez.equivalence` compares the results.
A scan never changes a file; only `rewrite` with an option to write does.
"""
