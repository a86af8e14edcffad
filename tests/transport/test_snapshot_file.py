from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from karez.transport.snapshot_file import SnapshotFile


def test_the_previous_step_survives_while_the_newest_is_written(tmp_path: Path) -> None:
    slots = SnapshotFile.create(tmp_path / "0.slots", 100)
    for step in range(5):
        slots.write(step, 1, [b"state", str(step).encode()])
    assert slots.steps() == (3, 4)
    again = SnapshotFile(tmp_path / "0.slots")
    found = again.read(3)
    assert found is not None
    assert (found.body, found.generation) == (b"state3", 1)
    assert again.read(2) is None
    assert again.read(9) is None


def test_a_snapshot_with_a_flipped_bit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "0.slots"
    slots = SnapshotFile.create(path, 64)
    slots.write(1, 1, [b"x" * 64])
    data = bytearray(path.read_bytes())
    data[4096 + 3] ^= 1
    path.write_bytes(data)
    assert SnapshotFile(path).read(1) is None


def test_steps_that_were_rolled_back_are_dropped(tmp_path: Path) -> None:
    slots = SnapshotFile.create(tmp_path / "0.slots", 8)
    slots.write(6, 1, [b"a"])
    slots.write(7, 1, [b"b"])
    slots.drop_newer_than(6)
    assert slots.steps() == (6,)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0" * 9000)
    with pytest.raises(ValueError, match="not a snapshot file"):
        SnapshotFile(tmp_path / "x")


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=12))
@settings(deadline=None, max_examples=30)
def test_the_last_two_steps_can_always_be_read(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[bytes]
) -> None:
    slots = SnapshotFile.create(tmp_path_factory.mktemp("s") / "f", 50)
    for step, body in enumerate(bodies):
        slots.write(step, 3, [body[:10], body[10:]])
        for readable in range(max(0, step - 1), step + 1):
            found = slots.read(readable)
            assert found is not None
            assert found.body == bodies[readable]
