"""Writes `v0_2/`: what this release stores, in mid-work. Run once, before the release is tagged.

python -m tests.stored.write_v0_2
"""

import json
import shutil
import tempfile
from pathlib import Path

from karez.core.codec import to_text
from karez.core.usage import AuditRow
from karez.store.dump import SqlDump
from tests.sim.fake_cloud import HOUR_S, FakeCloud

FOLDER = Path(__file__).parent / "v0_2"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        cloud = FakeCloud(Path(name), nodes=("a", "b"), cores=4)
        cloud.deploy(replicas=1)
        low = cloud.submit(ranks=6, steps=90, preemptible=True)
        cloud.run(3.5 * HOUR_S)
        cloud.kill(cloud.living(low)[0])  # leaves a receipt
        cloud.run(3 * HOUR_S)
        cloud.store.access.put_secret("default", "TOKEN", b"\x00sealed")
        row = AuditRow(id=0, at=1.0, actor="me", action="test", subject=low, outcome="done")
        with cloud.store.usage.auditing(lambda: row):
            pass
        cloud.submit(ranks=6, steps=3, priority=5)  # `low` is to make room for it
        cloud.close()
        dump = SqlDump(f"sqlite:///{Path(name) / 'k.db'}")
        shutil.rmtree(FOLDER, ignore_errors=True)
        manifest = dump.dump(FOLDER)
        dump.close()
    (FOLDER / "database.json").write_text(json.dumps(json.loads(to_text(manifest)), indent=1))


if __name__ == "__main__":
    main()
