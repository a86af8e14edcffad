"""Kinds of files other than Python, by their names."""

from pathlib import PurePosixPath

KERNELS = frozenset((".cu", ".cuh"))
NATIVE = frozenset((".cpp", ".cc", ".cxx", ".c", ".h", ".hpp", ".hh"))
SHELL = frozenset((".sh", ".bash", ".zsh", ".slurm", ".sbatch", ".job", ".mk"))
SETTINGS = frozenset((".yaml", ".yml", ".json", ".toml", ".ini", ".cfg"))


def is_shell(path: PurePosixPath) -> bool:
    """Whether a file is a shell script or a make file."""
    return path.suffix in SHELL or path.name in ("Makefile", "makefile", "justfile")


def is_docker(path: PurePosixPath) -> bool:
    """Whether a file describes a container image or services."""
    name = path.name.lower()
    return "dockerfile" in name or name.startswith("docker-compose") or path.suffix == ".def"


def is_settings(path: PurePosixPath) -> bool:
    """Whether a file holds settings."""
    return path.suffix in SETTINGS


def is_requirements(path: PurePosixPath) -> bool:
    """Whether a file lists packages to install."""
    name = path.name.lower()
    is_list = path.suffix in (".txt", ".in") and "require" in name
    return is_list or name in ("pyproject.toml", "setup.cfg", "pipfile") or "environment" in name


def is_kernel(path: PurePosixPath) -> bool:
    """Whether a file is CUDA source."""
    return path.suffix in KERNELS


def is_native(path: PurePosixPath) -> bool:
    """Whether a file is C or C++."""
    return path.suffix in NATIVE
