"""Finds hotspots in communication.json: packets that are too small or of odd sizes."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from karez.tuning.hotspots import Hotspot, Total, number_of

SMALL_MB = {"SDMA": 16.0, "HCCS": 16.0, "RDMA": 1.0}
"""Smallest efficient packet of each link (advisor)."""
SMALL_SHARE, ALIGN_BYTES = 0.2, 512
"""Share of small packets from which on they count, and the alignment of packets (advisor)."""


def communication_hotspots(file: TextIO) -> Iterator[Hotspot]:
    """The hotspots among all collectives."""
    packets: Counter[str] = Counter()
    small: dict[str, Total] = defaultdict(Total)
    odd = Total()
    for link, size_mb, time_us in _packets(json.load(file)):
        packets[link] += 1
        if size_mb < SMALL_MB[link]:
            small[link].add(time_us)
        if round(size_mb * 1_000_000) % ALIGN_BYTES and link != "RDMA":
            odd.add(time_us)
    for link, count in packets.items():
        if small[link].count > SMALL_SHARE * count:
            yield _small_packets(link, small[link], count)
    if odd.count:
        yield odd.hotspot(
            "odd-packets",
            "sizes",
            f"Sizes should be multiples of {ALIGN_BYTES} bytes: pad the reduced tensors.",
        )


def _small_packets(link: str, total: Total, packets: int) -> Hotspot:
    return Hotspot(
        rule="small-packets",
        what=link,
        count=total.count,
        time_us=total.time_us,
        share=total.count / packets,
        source="advisor",
        reason=f"Under {SMALL_MB[link]:.0f} MB each: larger buckets or batches, "
        "accumulation; ZeRO-1 or 2 instead of 3 where memory allows.",
    )


def _packets(table: Mapping[str, Any]) -> Iterator[tuple[str, float, float]]:
    """The link, the size in MB and the time in us of each collective."""
    for step in table.values():
        for group in step.values():
            for name, collective in group.items():
                links = collective.get("Communication Bandwidth Info", {})
                for link, info in links.items() if name != "Total Op Info" else ():
                    size_mb = number_of(info.get("Transit Size(MB)"))
                    if link in SMALL_MB and size_mb:
                        yield link, size_mb, 1000 * number_of(info.get("Transit Time(ms)"))
