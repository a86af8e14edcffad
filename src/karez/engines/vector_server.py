"""HTTP for embeddings in OpenAI's form, ranks in Jina's and labels in vLLM's."""

import asyncio
import base64
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from aiohttp import web

from karez.core.engines import Task
from karez.engines.engine_http import read_body
from karez.engines.generation import BadField

MOST_TEXTS = 2048
"""Texts of one request; source: OpenAI's API reference, "Create embeddings", input."""


class VectorModel(Protocol):
    """A model that reads texts. Called in a thread, one call at a time."""

    def embed(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.float32], int]:
        """Vectors, one a row, and the tokens that were read."""
        ...

    def score(self, query: str, documents: Sequence[str]) -> tuple[Sequence[float], int]:
        """How well each document answers the query, and the tokens that were read."""
        ...

    def classify(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.float32], int]:
        """Chances of the labels, one text a row, and the tokens that were read."""
        ...

    @property
    def labels(self) -> Sequence[str]:
        """Names of the labels, in the order of their chances."""
        ...


@dataclass(slots=True, kw_only=True)
class VectorServer:
    """Answers requests for embeddings, scores or labels."""

    alias: str
    task: Task
    model: VectorModel
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "vectors"))

    def routes(self) -> list[web.RouteDef]:
        """What it answers."""
        if self.task == Task.RERANK:
            return [web.post("/v1/rerank", self._rerank)]
        if self.task == Task.CLASSIFY:
            return [web.post("/v1/classify", self._classify)]
        return [web.post("/v1/embeddings", self._embed)]

    async def _embed(self, request: web.Request) -> web.Response:
        body = await read_body(request)
        texts = _input_of(body)
        form = body.get("encoding_format", "float")
        if form not in ("float", "base64"):
            raise BadField("encoding_format is float or base64")
        if body.get("dimensions") is not None:
            raise BadField("this model gives vectors of one length: leave dimensions out")
        vectors_BD, tokens = await self._run(self.model.embed, texts)
        rows = [
            {"object": "embedding", "index": number, "embedding": _shown(vector_D, form)}
            for number, vector_D in enumerate(vectors_BD)
        ]
        return web.json_response(self._whole(body, {"object": "list", "data": rows}, tokens))

    async def _rerank(self, request: web.Request) -> web.Response:
        body = await read_body(request)
        query, documents = body.get("query"), body.get("documents")
        if not isinstance(query, str):
            raise BadField("query is a text")
        _check_texts(documents, "documents")
        scores, tokens = await self._run(self.model.score, query, documents)
        found = [{"index": n, "relevance_score": float(score)} for n, score in enumerate(scores)]
        found.sort(key=lambda one: -one["relevance_score"])
        most = body.get("top_n")
        if most is not None and (type(most) is not int or most < 1):
            raise BadField("top_n is a number of documents")
        return web.json_response(self._whole(body, {"results": found[:most]}, tokens))

    async def _classify(self, request: web.Request) -> web.Response:
        body = await read_body(request)
        texts = _input_of(body)
        if not all(text.strip() for text in texts):
            raise BadField("input has an empty text, which has no label")
        chances_BC, tokens = await self._run(self.model.classify, texts)
        if not np.isfinite(chances_BC).all():
            raise RuntimeError("the model gives no finite chances")
        labels = self.model.labels
        rows = [
            {
                "index": number,
                "label": labels[int(chances_C.argmax())],
                "probs": chances_C.tolist(),
                "num_classes": len(labels),
            }
            for number, chances_C in enumerate(chances_BC)
        ]
        answer = {"object": "list", "data": rows, "labels": list(labels)}
        return web.json_response(self._whole(body, answer, tokens))

    def _whole(
        self, body: Mapping[str, Any], answer: Mapping[str, Any], tokens: int
    ) -> dict[str, Any]:
        model = body.get("model", self.alias)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"model": model, **answer, "usage": usage}

    async def _run(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


def _input_of(body: Mapping[str, Any]) -> list[str]:
    """The texts of a request. Raises BadField."""
    texts: Any = [body["input"]] if isinstance(body.get("input"), str) else body.get("input")
    _check_texts(texts, "input")
    return list(texts)


def _check_texts(texts: Any, name: str) -> None:
    if not isinstance(texts, list) or not texts or not all(isinstance(one, str) for one in texts):
        raise BadField(f"{name} is a list of texts")
    if len(texts) > MOST_TEXTS:
        raise BadField(f"{name} has at most {MOST_TEXTS} texts")


def _shown(vector_D: npt.NDArray[np.float32], form: str) -> Any:
    if form == "base64":
        return base64.b64encode(vector_D.astype("<f4").tobytes()).decode()
    return vector_D.tolist()
