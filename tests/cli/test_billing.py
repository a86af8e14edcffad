"""What was used and what it costs, on the command line."""

import csv
import io
import json

from karez.client.sdk import Client
from karez.store.schema import ledger as table
from karez.store.sql import SqlStore
from tests.api import Api
from tests.cli.conftest import Karez
from tests.server.test_billing import call, lend


def test_the_command_line_shows_the_bill_and_finds_what_was_changed(
    api: Api, karez: Karez, url: str
) -> None:
    now = api.cloud.clock.now()
    price = ("--prompt", "2", "--cached", "1", "--completion", "10")
    assert karez("prices", "set", "chat", *price).code == 0
    api.cloud.store.usage.add_calls([call(n, at=now - 1) for n in range(3)])
    assert "0.000780" in karez("usage").out
    done = karez("usage", "verify")
    assert (done.code, "3 lines hold" in done.out) == (0, True)
    with Client(url, api.admin) as client:
        last = client.ledger("default")[-1].hash
    assert last in done.out
    assert karez("usage", "verify", "--expect", last).code == 0
    gone = karez("usage", "verify", "--expect", "0" * 64)
    assert (gone.code, "not the one that was verified" in gone.err) == (1, True)
    rows = list(csv.DictReader(io.StringIO(karez("usage", "minutes", "--csv").out)))
    assert sum(int(row["requests"]) for row in rows) == 3
    assert sum(int(row["cost_nano"]) for row in rows) == 780_000
    karez("prices", "set", "*", "--prompt", "0.5", "--off-peak", "22:00-06:00")
    assert "0.5" in karez("prices", "list").out
    assert karez("prices", "set", "x", "--prompt", "-1").code == 2
    assert karez("prices", "remove", "*").code == 0
    assert "12.5" in karez("projects", "limits", "default", "--spend", "12.5").out
    assert "12.5" not in karez("projects", "limits", "default", "--spend", "-1").out
    assert karez("projects", "limits", "default", "--spend", "inf").code == 2
    calls = ("projects", "limits", "default", "--requests-per-minute", "60")
    assert "60 requests/min" in karez(*calls).out
    assert "60 requests/min, 9 tokens/min" in karez(*calls[:3], "--tokens-per-minute", "9").out
    assert karez(*calls[:3], "--tokens-per-minute", "-1").code == 2
    store = api.cloud.store
    assert isinstance(store, SqlStore)
    with store.db.write() as tx:  # as whoever has the database can
        body = tx.execute(table.select().where(table.c.seq == 2)).one().body
        forged = body.replace('"prompt_tokens":100', '"prompt_tokens":900')
        tx.execute(table.update().where(table.c.seq == 2).values(body=forged))
    broken = karez("usage", "verify")
    assert (broken.code, "line 2 is not the one that was written" in broken.err) == (1, True)


def test_prices_of_devices_are_set_listed_and_removed(karez: Karez) -> None:
    night = ("--off-peak", "22:00-06:00", "--off-peak-percent", "60")
    assert (
        karez("prices", "set-device", "npu:910b", "--hour", "1.8", *night, "--services").code == 0
    )
    assert karez("prices", "set-device", "cpu", "--hour", "0.02").code == 0
    told = karez("prices", "devices").out
    assert "1.8" in told
    assert "60% at 22:00-06:00" in told
    assert "jobs and services" in told
    (cpu, npu) = json.loads(karez("prices", "devices", "--json").out)
    assert (cpu["hour"], npu["services"]) == (20_000, True)
    refused = karez("prices", "set-device", "tpu", "--hour", "1")
    assert (refused.code, "write npu, gpu:h100 or cpu" in refused.err) == (2, True)
    assert karez("prices", "set-device", "npu", "--hour", "nan").code == 2
    assert karez("prices", "remove-device", "cpu").code == 0
    assert karez("prices", "remove-device", "cpu").code != 0


def test_who_gave_devices_to_whom(api: Api, karez: Karez) -> None:
    assert "nothing was given or left" in karez("usage", "settlement").out
    lend(api)
    told = karez("usage", "settlement", "--last", "1h").out
    assert "research/train" in told
    assert "default/chat" in told
    assert "4.0 s, at most 4.0 s" in told
    assert "jobs held 0.33 npu hours" in told
    (row,) = csv.DictReader(io.StringIO(karez("usage", "settlement", "--csv").out))
    assert (row["to_name"], row["times"]) == ("chat", "1")
    assert json.loads(karez("usage", "settlement", "--json").out)["services"][0]["name"] == "chat"
    assert karez("usage", "settlement", "--last", "soon").code == 2
