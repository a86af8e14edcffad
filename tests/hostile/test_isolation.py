"""What keeps jobs apart, and what does not yet (C1, M1, M5); the owner's way in."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from karez.cli.main import app
from karez.core.codec import to_json
from karez.core.identity import Project, Role
from karez.core.nodes import Isolation
from karez.core.processes import Staged
from karez.core.settings import Settings
from karez.drivers.steward.checkpoint_folders import CheckpointFolders
from karez.drivers.steward.input_folders import InputFolders
from karez.drivers.steward.staging import BlobSource, gather
from karez.server.home import Home
from karez.server.services.gateway_table import build_gateway_table
from karez.server.wiring import reset_admin
from karez.vault.keys import write_private
from tests.api import running_api
from tests.contracts.gang import until
from tests.drivers.test_steward import JOB, A, spec
from tests.fakes import DirectFabric, FakeClock, cpu_node
from tests.loopback import served


def test_a_second_project_needs_the_operators_word(tmp_path: Path) -> None:
    with running_api(tmp_path, settings=Settings()) as api:
        assert api.ask("POST", "/projects", json={"name": "early"}).status_code == 201  # no node
        api.cloud.store.pool.record_nodes([cpu_node("n", 8)], now=1.0)
        refused = api.ask("POST", "/projects", json={"name": "b"})
        assert (refused.status_code, "run as one user" in refused.json()["title"]) == (422, True)
        assert "shared_user" in refused.json()["hint"]
        apart = replace(cpu_node("n", 8), isolation=Isolation.USERS)
        api.cloud.store.pool.record_nodes([apart], now=2.0)
        assert api.ask("POST", "/projects", json={"name": "b"}).status_code == 201
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


def test_outputs_and_checkpoints_follow_no_link_out_of_their_folder(tmp_path: Path) -> None:
    """H10: the node would read what the job's links lead to."""
    secret, out = tmp_path / "pepper", tmp_path / "out"
    secret.write_text("the cloud's own")
    (out / "o/deep").mkdir(parents=True)
    (out / "o/real").write_text("own")
    for link, to in (
        (out / "o/p", secret),
        (out / "o/deep/up", Path("../../../pepper")),
        (out / "top", secret),
        (out / "folder", tmp_path),
        (out / "o/here", Path("real")),
    ):
        link.symlink_to(to)
    source = BlobSource(folder=str(tmp_path / "blobs"))
    found = {f"{name}/{entry.path}": entry.sha256 for name, entry in gather(source, out)}
    assert found.keys() == {"o/real", "o/here"}
    digest = hashlib.sha256(secret.read_bytes()).hexdigest()
    assert digest not in found.values()
    assert not (tmp_path / "blobs" / digest[:2] / digest).exists()
    kept = CheckpointFolders(tmp_path / "work", source)
    folder = kept.folder(JOB)
    kept.lay_out(JOB, "start", ())
    (folder / "c").write_text("own")
    (folder / "p").symlink_to(secret)
    listing = kept.store(JOB, "start", 0.0)
    assert listing is not None
    assert [entry.path for entry in listing.files] == ["c"]


def test_an_input_is_laid_out_in_its_folder_alone(tmp_path: Path) -> None:
    """H5, at the node too: whatever control says."""
    folders = InputFolders(tmp_path / "work", BlobSource(folder=str(tmp_path / "blobs")))
    for name in ("/tmp/victim", "../../../../x", ".."):
        with pytest.raises(ValueError, match="invalid name"):
            folders.lay_out(JOB, [Staged(artifact="a", folder=name, files=())])


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


def test_a_key_is_replaced_by_another_of_the_same_rights(tmp_path: Path) -> None:
    """M5: with or without a time in which both are valid; by who may make such a key."""
    with running_api(tmp_path) as api:
        api.cloud.access.add_project(Project(name="b"))
        calls = {
            "requests_per_minute": 5,
            "tokens_per_minute": 700,
            "models": ["b/chat"],
            "addresses": ["10.0.0.0/8"],
            "priority": "near-line",
        }
        made = {"name": "ci", "project": "b", "expires_in_s": 600.0, "calls": calls}
        old = api.ask("POST", "/keys", json=made).json()
        path = f"/keys/{old['id']}/rotate"
        assert api.ask("POST", path, api.key(Role.ADMIN), json={}).status_code == 404
        assert api.ask("POST", path, old["key"], json={}).status_code == 403
        assert api.ask("POST", path, json={"grace_s": -1.0}).status_code == 422
        new = api.ask("POST", path, json={"grace_s": 60.0}).json()
        assert {k: new[k] for k in ("name", "project", "role")} == {
            k: old[k] for k in ("name", "project", "role")
        }
        for key in (old["key"], new["key"]):
            assert api.ask("GET", "/whoami", key).json()["project"] == "b"
        clock = api.cloud.clock
        assert isinstance(clock, FakeClock)
        clock.pause(61.0)
        assert api.ask("GET", "/whoami", old["key"]).status_code == 401
        again = api.ask("POST", f"/keys/{new['id']}/rotate", json={}).json()
        assert api.ask("GET", "/whoami", new["key"]).status_code == 401
        assert api.ask("GET", "/whoami", again["key"]).status_code == 200
        gone = api.ask("POST", f"/keys/{new['id']}/rotate", json={})
        assert (gone.status_code, "revoked" in gone.json()["title"]) == (422, True)
        (kept,) = (key for key in api.ask("GET", "/keys").json() if key["id"] == again["id"])
        assert kept["expires_at"] == pytest.approx(clock.now() + 600.0)
        assert kept["calls"] == calls
        keys = build_gateway_table(api.cloud.store, clock.now(), {}).keys
        assert [to_json(key.calls) for key in keys if key.id == again["id"]] == [calls]
        for wrong in (
            {"requests_per_minute": -1},
            {"models": ["a b/\x1b"]},
            {"models": ["m"] * 101},
            {"addresses": ["10.0.0.1/8"]},
            {"addresses": ["here"]},
            {"priority": "first"},
        ):
            assert api.ask("POST", "/keys", json={**made, "calls": wrong}).status_code == 422


def test_the_owners_key_file_gets_the_new_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_api(tmp_path) as api, served(api.http.app) as url:
        file = tmp_path / "admin.key"
        write_private(file, api.admin)
        monkeypatch.setenv("KAREZ_HOME", str(tmp_path))
        monkeypatch.setenv("KAREZ_URL", url)
        monkeypatch.setenv("KAREZ_KEY", api.admin)
        ident = api.admin.split("_")[1]
        done = CliRunner().invoke(app, ["keys", "rotate", ident, "--yes"])
        assert done.exit_code == 0, done.output
        assert f"the new key is in {file}" in done.output
        assert file.stat().st_mode & 0o777 == 0o600
        assert api.ask("GET", "/whoami", file.read_text()).json()["role"] == "admin"
        assert api.ask("GET", "/whoami").status_code == 401
