"""Callers of the services of a whole cloud, with the vendor's own package."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import openai

from tests.contracts.cloud import Cloud

MESSAGES: Any = [{"role": "user", "content": "hello"}]


def chat(cloud: Cloud, key: str, model: str) -> str:
    url = str(cloud.address()["gateway"])
    with openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=120) as client:
        answer = client.chat.completions.create(
            model=model, messages=MESSAGES, max_tokens=100, temperature=0
        )
    return str(answer.choices[0].message.content)


@contextmanager
def streaming(cloud: Cloud, key: str) -> Iterator[Iterator[str]]:
    url = str(cloud.address()["gateway"])
    with openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=120) as client:
        events: Any = client.chat.completions.create(
            model="chat", messages=MESSAGES, max_tokens=100, temperature=0, stream=True
        )
        texts = (event.choices[0].delta.content for event in events if event.choices)
        yield (text for text in texts if text)


@contextmanager
def asking(cloud: Cloud, key: str) -> Iterator[list[float]]:
    """Ask again and again; every request is answered."""
    held: list[float] = []
    is_over = threading.Event()

    def go_on() -> None:
        while not is_over.wait(0.05):
            held.append(ask(cloud, key))

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(go_on)
        yield held
        is_over.set()
        asking.result()


def ask(cloud: Cloud, key: str) -> float:
    """Ask for an answer; returns for how many seconds the request was held."""
    url = str(cloud.address()["gateway"])
    with openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=120) as client:
        answer = client.completions.with_raw_response.create(
            model="rare", prompt="abc", max_tokens=4
        )
    assert answer.parse().choices
    return float(answer.headers.get("x-karez-held-ms", 0)) / 1000


def models(cloud: Cloud, key: str) -> set[str]:
    """The models that a key may call, as the gateway knows them; none while it knows no key."""
    url = str(cloud.address()["gateway"])
    try:
        with openai.OpenAI(base_url=url, api_key=key, max_retries=0) as client:
            return {model.id for model in client.models.list()}
    except openai.OpenAIError:
        return set()
