"""What keeps jobs apart, and what does not yet (C1, M1, M5); the owner's way in."""

from pathlib import Path

import pytest

from karez.core.settings import Settings
from karez.server.home import Home
from karez.server.wiring import reset_admin
from karez.vault.keys import write_private
from tests.api import running_api
from tests.contracts.gang import until
from tests.drivers.test_steward import A, spec
from tests.fakes import DirectFabric


def test_a_second_project_needs_the_operators_word(tmp_path: Path) -> None:
    with running_api(tmp_path, settings=Settings()) as api:
        refused = api.ask("POST", "/projects", json={"name": "b"})
        assert (refused.status_code, "run as one user" in refused.json()["title"]) == (422, True)
        assert "shared_user" in refused.json()["hint"]
    folder = tmp_path / "again"
    folder.mkdir()
    with running_api(folder, settings=Settings(shared_user=True)) as api:
        assert api.ask("POST", "/projects", json={"name": "b"}).status_code == 201


def test_the_owner_of_the_state_folder_gets_a_new_admin_key(tmp_path: Path) -> None:
    """M5: while the cloud runs, with every other key lost."""
    with running_api(tmp_path) as api:
        home = Home(path=tmp_path)
        write_private(home.admin_key, "lost")
        url = f"sqlite:///{tmp_path / 'k.db'}"
        file = reset_admin(Settings(home=str(tmp_path), database=url), home)
        assert (file, file.stat().st_mode & 0o777) == (home.admin_key, 0o600)
        assert api.ask("GET", "/whoami", file.read_text()).json()["role"] == "admin"
        assert api.ask("GET", "/whoami").status_code == 200  # others stay valid


@pytest.mark.story
def test_a_process_gains_no_rights_by_a_file(tmp_path: Path) -> None:
    fabric = DirectFabric(tmp_path, ["a"])
    try:
        fabric.start(A, spec("grep", "NoNewPrivs", "/proc/self/status"))
        until(lambda: not fabric.processes(A)[0].alive)
        said = fabric.read_log(A, "job-1.0.1", 0, 100).data
        assert said.split() == [b"NoNewPrivs:", b"1"]
    finally:
        fabric.close()
