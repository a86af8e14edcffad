"""How to list what there is, for errors that name what there is not. Pure."""

from collections.abc import Mapping

LISTED: Mapping[str, str] = {
    "artifact": "`karez artifacts list` shows what there is.",
    "blob": "`karez doctor --deep` tells what the blob store has lost.",
    "dataset": "`karez data list` shows what there is.",
    "file": "`karez artifacts show NAME --json` lists its files.",
    "job": "`karez jobs list` shows what there is.",
    "key": "`karez keys list` shows what there is.",
    "node": "`karez pool` shows what there is.",
    "path": "`karez jobs attach JOB -- ls` shows what there is.",
    "price": "`karez prices list` shows what there is.",
    "process": "`karez jobs show JOB` lists its ranks.",
    "project": "`karez projects list` shows what there is.",
    "secret": "`karez projects secrets` shows what there is.",
    "service": "`karez services list` shows what there is.",
    "tunnel": "It ends with its job, and when nobody reads it for a minute; open another.",
    "snapshot": "The folder `snapshots/` of the backup shows what there is.",
}
"""Noun -> how to list what there is of it."""
