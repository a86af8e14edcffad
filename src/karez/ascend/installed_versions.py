"""Finds the versions of Ascend's software that are installed on this machine."""

from importlib import metadata
from pathlib import Path

HOME = Path("/usr/local/Ascend")
_TOOLKIT = ("ascend-toolkit/latest", "cann", "cann/latest", "latest")
_PACKAGES = (
    ("torch_npu", "torch-npu"),
    ("vllm-ascend", "vllm-ascend"),
    ("mindie", "mindie-llm"),
    ("mindspore", "mindspore"),
    ("torch", "torch"),
)


def installed(home: Path = HOME, toolkit: str = "") -> dict[str, str]:
    """Installed versions: part -> version; missing parts are left out.

    Args:
        home: Where Ascend's installers put things.
        toolkit: CANN's folder, ASCEND_HOME_PATH, where its environment is set.
    """
    versions = {
        "driver": _field(home / "driver" / "version.info", "version"),
        "cann": _cann(Path(toolkit)) if toolkit else "",
    }
    for name in _TOOLKIT:
        versions["cann"] = versions["cann"] or _cann(home / name)
    for part, package in _PACKAGES:
        try:
            versions[part] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {part: version for part, version in versions.items() if version}


def _cann(folder: Path) -> str:
    """CANN's version from the installer's note, wherever that version of the toolkit puts it."""
    for pattern in ("*-linux/ascend_toolkit_install.info", "ascend_toolkit_install.info"):
        for path in sorted(folder.glob(pattern)):
            version = _field(path, "version")
            if version:
                return version
    return ""


def _field(path: Path, name: str) -> str:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        key, _, value = line.partition("=")
        if key.strip().lower() == name:
            return value.strip()
    return ""
