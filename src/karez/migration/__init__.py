"""From CUDA to NPU: scan, rewrite, report. Stands alone: no server needed.

`rules` know one construct each; `analyze` asks them about a file, `scan` about a repository, and
`rewrite` plans and writes changes. Whether the result computes the same is equivalence's question.
Nothing is written without being asked for.
"""
