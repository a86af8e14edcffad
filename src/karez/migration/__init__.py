"""CUDA to NPU: scan, rewrite, verify, convert. Stands alone: no server needed.

`rules` know one construct each; `examine` asks them about a file, `scan` about a repository, and
`rewrite` plans and writes changes. `emunpu` is a device to run them on, `verify` compares two runs,
`checkpoint` converts weights. Nothing is written without being asked for.
"""
