"""Greedy answers of a GGUF file to rows, by the llama.cpp that serves it."""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import xllamacpp

from karez.core.chat_rows import Row
from karez.core.errors import BadRequest, BrokenArtifact
from karez.studio.recipes.recipe_io import tell

PARALLEL = 4
"""Rows that are answered at once."""


class Said(NamedTuple):
    """What a model answered."""

    text: str
    is_cut: bool = False
    """Whether it was cut, since an answer may have no more tokens."""


def llamacpp_answers(
    file: Path, rows: Sequence[Row], *, context: int, new_tokens: int
) -> list[Said]:
    """The answer to each row.

    Args:
        file: A GGUF file.
        rows: Rows of chat; their last message is the expected answer, which is not shown.
        context: Tokens of a row and its answer.
        new_tokens: Most tokens of an answer.

    Raises:
        BadRequest: llama.cpp refuses a row, such as one that is longer than the context.
        BrokenArtifact: llama.cpp does not load it.
    """
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx = context * PARALLEL
    params.n_parallel = PARALLEL
    params.cpuparams.n_threads = len(os.sched_getaffinity(0))
    params.verbosity = 0
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        problem = f"llama.cpp does not load it: {error}"
        raise BrokenArtifact(name=file.name, problem=problem) from error

    def answer(row: Row) -> Said:
        request = {
            "messages": list(row[:-1]),
            "max_tokens": new_tokens,
            "temperature": 0.0,
            "cache_prompt": False,
        }
        told: Any = server.handle_chat_completions(request)
        if isinstance(told, str):
            told = json.loads(told)
        if "choices" not in told:
            said = str((told.get("error") or told).get("message") or told)[:200]
            fix = f"A row and its answer may have {context:,} tokens: allow more by --context."
            raise BadRequest(problem=f"llama.cpp refuses a row: {said}", fix=fix)
        first = told["choices"][0]
        text = str(first["message"].get("content") or "").strip()
        return Said(text, first.get("finish_reason") == "length")

    found = []
    with ThreadPoolExecutor(PARALLEL) as pool:
        for done, text in enumerate(pool.map(answer, rows)):
            if done % PARALLEL == 0:
                tell(f"answering with {file.name}", done, len(rows))
            found.append(text)
    return found
