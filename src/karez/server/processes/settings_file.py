"""The settings of a cloud: its `karez.toml`, then the environment."""

import os
from pathlib import Path

from karez.core import environment
from karez.core.errors import BadRequest
from karez.core.settings import Settings, resolve


def load_settings() -> Settings:
    """Read karez.toml in the state folder, then the environment. Raises ValueError."""
    home = os.environ.get(environment.HOME, Settings().home)  # noqa: TID251 - one of the two mains
    return settings_from(Path(home).expanduser() / "karez.toml")


def existing_home(settings: Settings) -> Path:
    """The state folder of a cloud that was started once. Raises BadRequest."""
    path = Path(settings.home).expanduser().absolute()
    if not (path / "pepper").exists():
        problem = f"there is no cloud in {path}"
        raise BadRequest(problem=problem, fix="Name its state folder with --home.")
    return path


def settings_from(file: Path) -> Settings:
    """Read a `karez.toml`, then the environment. Raises ValueError."""
    text = file.read_text() if file.exists() else ""
    return resolve(text, os.environ, {})[0]  # noqa: TID251 - one of the two mains
