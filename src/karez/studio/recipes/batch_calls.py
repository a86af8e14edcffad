"""Recipe: asks models what the lines of a file ask for, and writes each answer down at once.

What has been answered is in KAREZ_CHECKPOINT_DIR, which outlives attempts: after a kill only those
lines are asked again that have no answer there.
"""

import asyncio
import json
import os
import shutil
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

import httpx

from karez.core import environment
from karez.core.batches import BatchLine, parse_line
from karez.core.errors import Unreachable
from karez.runtime.host_clock import epoch_s
from karez.studio.recipes.recipe_io import folder, say, settings_of, tell, variable, write_card
from karez.studio.settings import BatchCalls

ANSWERS, ERRORS = "output", "errors"
TELL_S, DAY_S = 1.0, 86_400.0
FIRST_PAUSE_S, LAST_PAUSE_S = 0.5, 30.0
"""Pauses between attempts of a request, unless the gateway says how long to wait."""
GREETINGS: Final = 120
"""Attempts to reach the gateway before anything is asked."""
ATTEMPTS: Final = 4
"""Attempts of a line before others go before it: some lines fail again and again."""
UNKNOWN_KEY, TOO_MANY = 401, 429
EXPIRED: Final = {
    "code": "batch_expired",
    "message": "This request could not be executed before the completion window expired.",
}


@dataclass
class Results:
    """A file of results that is appended to, by this attempt and those before."""

    path: Path
    known: dict[str, None] = field(default_factory=dict)
    """Ids of the lines that are in it."""
    file: BinaryIO = field(init=False)

    def __post_init__(self) -> None:
        """Read what is there, and cut off what a kill or a power cut has left half."""
        self.file = self.path.open("ab+")
        self.file.seek(0)
        end = 0
        for line in self.file:
            ident = _id_of(line)
            if not ident:
                break
            self.known[ident] = None
            end += len(line)
        self.file.truncate(end)

    def add(self, line: BatchLine, response: object, error: object) -> None:
        """Write a result down."""
        number = len(self.known)
        row = {
            "id": f"batch_req_{self.path.stem}_{number}",
            "custom_id": line.custom_id,
            "response": response,
            "error": error,
        }
        self.file.write(json.dumps(row).encode() + b"\n")
        self.file.flush()
        self.known[line.custom_id] = None


def _id_of(line: bytes) -> str:
    """The id in a line of results; empty: it is not whole."""
    try:
        return str(json.loads(line)["custom_id"]) if line.endswith(b"\n") else ""
    except (ValueError, LookupError, TypeError):
        return ""


class KeyRevoked(Exception):
    """The gateway knows this job's key no longer."""


@dataclass
class Batch:
    """The requests of a file, and what has become of them."""

    settings: BatchCalls
    client: httpx.AsyncClient
    answers: Results
    errors: Results
    expired: int = 0
    later: deque[BatchLine] = field(default_factory=deque)
    """Lines that others were asked before, since they had no answer at once."""

    @property
    def done(self) -> int:
        """Lines with a result."""
        return len(self.answers.known) + len(self.errors.known)

    async def wait_for_gateway(self) -> None:
        """Wait until the gateway knows this job's key, which it hears of within a second or so.

        Raises:
            Unreachable: It does not answer, or does not know the key.
        """
        told = ""
        for _ in range(GREETINGS):
            try:
                answer = await self.client.get("/models")
            except httpx.HTTPError as error:
                told = type(error).__name__
            else:
                if answer.is_success:
                    return
                told = answer.text[:200]
            await asyncio.sleep(FIRST_PAUSE_S)
        raise Unreachable(what_is_it=f"The gateway ({told})", address=str(self.client.base_url))

    async def run(self, lines: Iterator[BatchLine]) -> None:
        """Ask so many at once, until all have a result."""
        await self.wait_for_gateway()
        async with asyncio.TaskGroup() as group:
            teller = group.create_task(self._tell())
            async with asyncio.TaskGroup() as workers:
                for _ in range(self.settings.parallel):
                    workers.create_task(self._work(lines))
            teller.cancel()

    async def _tell(self) -> None:
        while True:
            failed = len(self.errors.known)
            tell("answering", self.done, self.settings.requests, failed)
            await asyncio.sleep(TELL_S)

    async def _work(self, lines: Iterator[BatchLine]) -> None:
        for line in lines:
            if line.custom_id not in self.answers.known and line.custom_id not in self.errors.known:
                await self._ask(line, FIRST_PAUSE_S)
        while self.later:
            await self._ask(self.later.popleft(), LAST_PAUSE_S)

    async def _ask(self, line: BatchLine, pause_s: float) -> None:
        """Ask a few times; what has no answer then is asked again after all others.

        Raises:
            KeyRevoked: No line would be answered any more.
        """
        for _ in range(ATTEMPTS):
            left_s = self.settings.deadline - epoch_s()
            if left_s <= 0:
                self.expired += 1
                self.errors.add(line, None, EXPIRED)
                return
            said_s = 0.0
            try:
                answer = await self._post(line, left_s)
            except httpx.HTTPError as error:
                say(f"{line.custom_id!r}: {type(error).__name__}, asked again")
            else:
                if not _is_passing(answer):
                    self._note(line, answer)
                    return
                said_s = _seconds(answer.headers.get("retry-after", ""))
            await asyncio.sleep(min(left_s, max(pause_s, said_s)))
            pause_s = min(2 * pause_s, LAST_PAUSE_S)
        self.later.append(line)

    async def _post(self, line: BatchLine, left_s: float) -> httpx.Response:
        wait_ms = 1000 * min(left_s, DAY_S)
        headers = {"x-karez-priority": "offline", "x-karez-timeout-ms": f"{wait_ms:.0f}"}
        path = line.url.removeprefix("/v1")
        return await self.client.post(path, json=line.body, headers=headers, timeout=left_s + 60)

    def _note(self, line: BatchLine, answer: httpx.Response) -> None:
        response = {
            "status_code": answer.status_code,
            "request_id": answer.headers.get("x-request-id", ""),
            "body": _json(answer),
        }
        into = self.answers if answer.is_success else self.errors
        into.add(line, response, None)


def _is_passing(answer: httpx.Response) -> bool:
    """Whether a request may be answered later: too many at once, no money, or a fault behind it.

    Raises:
        KeyRevoked: No line would be answered any more.
    """
    if answer.status_code == UNKNOWN_KEY:
        raise KeyRevoked
    return answer.status_code == TOO_MANY or answer.is_server_error


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"text": answer.text}


def _seconds(text: str) -> float:
    return float(text) if text.isdecimal() else 0.0


def _lines(path: Path) -> Iterator[BatchLine]:
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                yield parse_line(line)


def _link(results: Results, out: Path) -> None:
    """Put a file of results among the outputs, so that it is there however the job ends."""
    target = out / results.path.stem / f"{results.path.stem}.jsonl"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(results.path, target)
    except OSError:
        shutil.copyfile(results.path, target)


def main() -> None:
    """Answer the batch."""
    settings = settings_of(BatchCalls)
    kept, out = folder(environment.CHECKPOINT_DIR), folder(environment.OUT)
    (source,) = (path for path in (folder(environment.INPUTS) / "requests").iterdir())
    answers, errors = (Results(kept / f"{name}.jsonl") for name in (ANSWERS, ERRORS))
    for results in (answers, errors):
        _link(results, out)
    say(f"{len(answers.known) + len(errors.known)} of {settings.requests} have a result already")

    async def run() -> Batch:
        async with httpx.AsyncClient(
            base_url=variable(environment.GATEWAY),
            headers={"authorization": f"Bearer {variable(environment.KEY)}"},
            limits=httpx.Limits(max_connections=settings.parallel),
        ) as client:
            batch = Batch(settings, client, answers, errors)
            await batch.run(_lines(source))
            return batch

    batch = asyncio.run(run())
    for results in (answers, errors):
        results.file.close()
        shutil.rmtree(out / results.path.stem, ignore_errors=True)
        if results.known:
            _link(results, out)
            _describe(out / results.path.stem, batch)
    say(f"{len(answers.known)} answered, {len(errors.known)} not, of {settings.requests}")


def _describe(output: Path, batch: Batch) -> None:
    facts = {
        "purpose": "batch_output",
        "completed": len(batch.answers.known),
        "failed": len(batch.errors.known),
        "expired": batch.expired,
    }
    write_card(output, kind="dataset", format="jsonl", facts=facts)
