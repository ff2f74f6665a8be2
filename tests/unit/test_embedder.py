"""The client of embedders: what it sends where, and which answers it believes."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from sync.config import Settings, load_settings
from sync.embedder import (
    Embedder,
    EmbedderUnavailable,
    TextsRefused,
    find_key,
    full_url,
    read_answer,
)
from sync.errors import ConfigurationError, UsageError
from tests.embedders import DIMENSIONS, FakeEmbedder, Trouble, changed, embed, fake_embedder, status


@pytest.fixture
async def fake() -> AsyncIterator[FakeEmbedder]:
    async with fake_embedder() as fake:
        yield fake


async def ask(fake: FakeEmbedder, *texts: str, **chosen: Any) -> list[list[float]]:
    dimensions = chosen.pop("dimensions", DIMENSIONS)
    async with Embedder(fake.url, model=None, user_agent="test", **chosen) as embedder:
        return await embedder.embed(texts, dimensions=dimensions)


async def test_embeddings_come_in_the_order_of_their_texts(fake: FakeEmbedder) -> None:
    texts = ["one", "two words", "\U0001f600 \u0000\u2028"]
    assert await ask(fake, *texts) == [embed(text) for text in texts]
    assert fake.requests == [texts]


async def test_the_length_is_found_out_when_nobody_knows_it(fake: FakeEmbedder) -> None:
    (answer,) = await ask(fake, "one", dimensions=None)
    assert len(answer) == DIMENSIONS


async def test_model_and_key_go_with_the_request(fake: FakeEmbedder) -> None:
    async with Embedder(fake.url, model="small", user_agent="me/1", key="k-1") as embedder:
        await embedder.embed(["a"], dimensions=None)
    await ask(fake, "a")
    assert fake.models == ["small", None]
    assert fake.headers[0]["authorization"] == "Bearer k-1"
    assert fake.headers[0]["user-agent"] == "me/1"
    assert "authorization" not in fake.headers[1]


@pytest.mark.parametrize("code", [400, 413, 422])
async def test_texts_that_are_refused_are_told_from_trouble(fake: FakeEmbedder, code: int) -> None:
    fake.troubles = [status(code, '{"error": "too  long"}')]
    with pytest.raises(TextsRefused, match="too long"):
        await ask(fake, "a")


@pytest.mark.parametrize("code", [201, 301, 401, 403, 404, 429, 500, 503])
async def test_any_other_status_is_to_be_waited_out(fake: FakeEmbedder, code: int) -> None:
    fake.troubles = [status(code, location=fake.url)]
    with pytest.raises(EmbedderUnavailable, match=str(code)) as caught:
        await ask(fake, "a")
    assert caught.value.pause_s is None
    assert len(fake.requests) == 1  # a redirect is not followed: it would get the key


@pytest.mark.parametrize(("asked", "pause_s"), [("7", 7.0), ("999999", 300.0), ("soon", None)])
async def test_the_embedder_says_how_long(fake: FakeEmbedder, asked: str, pause_s: float) -> None:
    fake.troubles = [status(429, retry_after=asked)]
    with pytest.raises(EmbedderUnavailable) as caught:
        await ask(fake, "a")
    assert caught.value.pause_s == pause_s


async def test_what_it_says_can_be_stored(fake: FakeEmbedder) -> None:
    fake.troubles = [status(400, "a\0b"), status(502, "a\0b")]
    for error in (TextsRefused, EmbedderUnavailable):
        with pytest.raises(error, match=r"a b$"):
            await ask(fake, "a")


@pytest.mark.parametrize(("code", "may_be_texts"), [(500, True), (504, True), (429, False)])
async def test_a_failure_may_be_that_of_the_texts(
    fake: FakeEmbedder, code: int, may_be_texts: bool
) -> None:
    fake.troubles = [status(code)]
    with pytest.raises(EmbedderUnavailable) as caught:
        await ask(fake, "a")
    assert caught.value.may_be_texts is may_be_texts


async def test_one_that_is_too_slow_is_told_from_one_that_is_down(fake: FakeEmbedder) -> None:
    fake.is_open.clear()
    with pytest.raises(EmbedderUnavailable) as caught:
        await ask(fake, "a", timeout_s=0.05)
    assert caught.value.may_be_texts
    async with Embedder("http://127.0.0.1:1/v1", model=None, user_agent="test") as embedder:
        with pytest.raises(EmbedderUnavailable) as caught:
            await embedder.embed(["a"], dimensions=None)
    assert not caught.value.may_be_texts


def number(value: str) -> Callable[[list[dict[str, Any]]], Any]:
    def change(data: list[dict[str, Any]]) -> Any:
        data[0]["embedding"][3] = float(value)
        return data

    return change


def first(**values: Any) -> Callable[[list[dict[str, Any]]], Any]:
    return lambda data: [{**data[0], **values}, *data[1:]]


WRONG: dict[str, Trouble] = {
    "fewer": changed(lambda data: data[1:]),
    "none": changed(lambda data: []),
    "more": changed(lambda data: [*data, data[0]]),
    "twice the same": changed(lambda data: [data[0], data[0]]),
    "an index beyond": changed(first(index=2)),
    "shorter": changed(first(embedding=[1.0])),
    "longer": changed(first(embedding=[1.0] * (DIMENSIONS + 1))),
    "empty": changed(first(embedding=[])),
    "NaN": changed(number("nan")),
    "infinite": changed(number("inf")),
    "too large": changed(number("65505")),
    "almost zeros": changed(first(embedding=[1e-7] * DIMENSIONS)),
    "too long": lambda data: web.Response(text=json.dumps({"data": data}) + " " * (8 << 20)),
    "zeros": changed(first(embedding=[0.0] * DIMENSIONS)),
    "base64": changed(first(embedding="AAAA")),
    "null": changed(first(embedding=None)),
    "texts": changed(first(embedding=["1"] * DIMENSIONS)),
    "no list": changed(lambda data: {"a": 1}),
    "no JSON": lambda _: web.Response(text="<html>"),
    "no UTF-8": lambda _: web.Response(body=b"\xff\xfe"),
    "nothing": lambda _: web.Response(text=""),
    "deep": lambda _: web.Response(text="[" * 100_000),
    "another object": lambda _: web.Response(text='{"error": "no"}'),
    "a huge number": lambda _: web.Response(
        text='{"data": [{"index": 0, "embedding": [1' + "0" * 400 + "]}]}"
    ),
}


@pytest.mark.parametrize("what", WRONG)
async def test_a_wrong_answer_is_not_believed(fake: FakeEmbedder, what: str) -> None:
    fake.troubles = [WRONG[what]]
    with pytest.raises(EmbedderUnavailable):
        await ask(fake, "a", "b")
    assert await ask(fake, "a") == [embed("a")]


async def test_an_answer_without_indexes_is_in_order(fake: FakeEmbedder) -> None:
    without = changed(lambda data: [{"embedding": item["embedding"]} for item in data])
    fake.troubles = [without]
    assert await ask(fake, "a", "b") == [embed("a"), embed("b")]


def test_an_answer_that_differs_within_itself_is_wrong() -> None:
    body = b'{"data": [{"embedding": [1, 2]}, {"embedding": [1, 2, 3]}]}'
    with pytest.raises(EmbedderUnavailable, match="another model"):
        read_answer(body, number=2, dimensions=None)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("http://localhost:11434", "http://localhost:11434/v1/embeddings"),
        ("https://api.example.com/v1/", "https://api.example.com/v1/embeddings"),
        ("https://x.test/openai/v1", "https://x.test/openai/v1/embeddings"),
        ("https://x.test/v1/embeddings", "https://x.test/v1/embeddings"),
        ("https://x.test/e?api-version=2", "https://x.test/e?api-version=2"),
    ],
)
def test_the_end_of_a_url_may_be_left_out(given: str, url: str) -> None:
    assert full_url(given) == url


URLS_OF_NONE = [
    *("", "x", "ftp://x", "http://", "https://me:pw@x.test/v1", "http://[", "http://[::1"),
    *("http://x:99999/", "http://x:0/", "http://x/a b", "http://x/\udcff", "http://x/#a"),
]


@pytest.mark.parametrize("given", URLS_OF_NONE)
def test_what_is_no_url_of_an_embedder_is_refused(given: str) -> None:
    with pytest.raises(UsageError):
        full_url(given)


KEYS = Settings(embedder_keys=(("api.example.com", "KEY"), ("localhost", "KEY")))


def test_a_key_goes_to_its_host_only() -> None:
    environ = {"KEY": " k-1\n"}
    assert find_key(KEYS, "https://API.example.com/v1", environ) == "k-1"
    assert find_key(KEYS, "http://localhost:8000/v1", environ) == "k-1"
    assert find_key(KEYS, "https://api.example.com.evil.test/v1", environ) is None
    assert find_key(Settings(), "https://api.example.com/v1", environ) is None


def test_a_key_is_not_sent_in_the_clear_and_must_be_there() -> None:
    with pytest.raises(ConfigurationError, match="no https"):
        find_key(KEYS, "http://api.example.com/v1", {"KEY": "k-1"})
    for environ in ({}, {"KEY": "  "}, {"KEY": "a\nb"}):
        with pytest.raises(ConfigurationError, match="holds no key"):
            find_key(KEYS, "https://api.example.com/v1", environ)


def test_keys_are_settings_and_never_shown() -> None:
    variable = "STANDPIPE_EMBEDDER_KEYS"
    settings = load_settings({variable: "API.example.com=KEY, b.test=OTHER"})
    assert settings.embedder_keys == (("api.example.com", "KEY"), ("b.test", "OTHER"))
    with pytest.raises(ConfigurationError) as caught:
        load_settings({variable: "api.example.com=sk-secret"})
    assert "sk-secret" not in str(caught.value)
