"""Sends requests to the replica that has computed the beginning of their prompt already. Pure.

Engines keep the state of prompts that they have seen. A request that begins like an earlier one is
cheaper where that one was, but not at any price: waiting has its price too.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson
import xxhash

BLOCK_BYTES = 256
"""About 64 tokens; beginnings are compared by blocks of so many bytes."""
MAX_BLOCKS = 512
"""Blocks of one prompt that are compared: 128 KiB of it."""
REMEMBERED = 1 << 16
"""Blocks that are remembered for each replica: 16 MiB of prompts."""
WAIT_WEIGHT = 0.5
"""What one request more at a replica weighs, in prompts of the mean length."""


def blocks_of(request: Mapping[str, object]) -> list[int]:
    """Hashes of the beginnings of a prompt, by one block longer each; one that is cut has none.

    What was computed for one adapter of a service is of no use to another: each has hashes of its
    own.
    """
    said = request.get("prompt") or request.get("messages") or request.get("input")
    if not said:
        return []
    data = said.encode() if isinstance(said, str) else orjson.dumps(said)
    found, before = [], xxhash.xxh3_64_intdigest(str(request.get("model")).encode())
    for at in range(0, min(len(data), MAX_BLOCKS * BLOCK_BYTES) - BLOCK_BYTES + 1, BLOCK_BYTES):
        before = xxhash.xxh3_64_intdigest(data[at : at + BLOCK_BYTES], before)
        found.append(before)
    return found


@dataclass(slots=True)
class PrefixAffinity:
    """What each replica of a service has computed, as far as is known here."""

    mean_blocks: float = 1.0
    """Of the prompts of late that are not known yet."""
    _known: dict[str, OrderedDict[int, None]] = field(default_factory=dict)
    """URL of a replica -> the beginnings that it has computed, the newest last."""

    def choose(self, blocks: Sequence[int], loads: Mapping[str, int]) -> str:
        """The replica to ask, of those whose requests are counted in `loads`; remembers it.

        The cost of each is what it would have to compute of the prompt, and the requests that it
        has beyond the least busy one.
        """
        least = min(loads.values())
        wait = WAIT_WEIGHT * self.mean_blocks

        def cost(url: str) -> tuple[float, int, str]:
            missing = len(blocks) - self._matched(url, blocks)
            return missing + wait * (loads[url] - least), loads[url], url

        url = min(loads, key=cost)
        missing = len(blocks) - self._matched(url, blocks)
        self.mean_blocks += (max(1, missing) - self.mean_blocks) / 64
        self.remember(url, blocks)
        return url

    def keep_only(self, urls: Sequence[str]) -> None:
        """Forget replicas that are gone."""
        for url in self._known.keys() - set(urls):
            del self._known[url]

    def _matched(self, url: str, blocks: Sequence[int]) -> int:
        """How many blocks of the beginning a replica has computed."""
        known = self._known.get(url)
        if not known:
            return 0
        low, high = 0, len(blocks)  # who knows a beginning knows all that are shorter
        while low < high:
            middle = (low + high) // 2
            if blocks[middle] in known:
                low = middle + 1
            else:
                high = middle
        return low

    def remember(self, url: str, blocks: Sequence[int]) -> None:
        """Note that a replica computes a prompt."""
        known = self._known.setdefault(url, OrderedDict())
        for block in reversed(blocks):  # a beginning is forgotten after what goes on from it
            known[block] = None
            known.move_to_end(block)
        while len(known) > REMEMBERED:
            known.popitem(last=False)
