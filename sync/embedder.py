"""Ask an embedder for the embeddings of texts: any server with the /v1/embeddings of OpenAI.

An operator chose its URL, so it may be on this machine or in a private network; what it answers is
still checked. Two things can go wrong, and they ask for different steps:

    EmbedderUnavailable   it does not answer, is too busy or too slow, refuses us, or answers
                          something else than was asked for: ask again later
    TextsRefused          it does not take these texts (400, 413, 422): ask for fewer at a time

A key is sent only to the host that the settings name it for, and only encrypted or on this machine.
"""

import math
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Self
from urllib.parse import urlsplit

import httpx
import msgspec

from sync.config import Settings
from sync.errors import ConfigurationError, UpstreamUnavailable, UsageError
from sync.http import HttpClient, HttpFailure, Reply, retry_after_s

TIMEOUT_S = 60.0
# Any embedder takes it: when it does not, the cause is not the text that it refused before.
PLAIN_TEXT = "water"
MAX_PAUSE_S = 300.0
# Of an answer: what goes around the numbers, what one takes on a line of its own, how many there
# are when nobody knows, and the most of all, for 2,048 texts with 4,000 numbers of 25 bytes each.
FRAME_BYTES, NUMBER_BYTES, MOST_NUMBERS = 1 << 20, 64, 16_000
MAX_ANSWER_BYTES = 256 << 20
# What keeps its direction as pgvector's halfvec, in which longer embeddings are indexed.
MAX_NUMBER, MIN_LENGTH = 65_504.0, 1e-4
_REFUSES_TEXTS = {400, 413, 422}
_SAID_LENGTH = 200
_THIS_MACHINE = {"localhost", "127.0.0.1", "::1"}

Embedding = list[float]


class EmbedderUnavailable(UpstreamUnavailable):
    """There is no usable answer now; `pause_s` is what the embedder asked us to wait, if it did.

    With `may_be_texts` it took too long or failed, which others or fewer texts may not bring about.
    """

    def __init__(
        self, said: str, *, pause_s: float | None = None, may_be_texts: bool = False
    ) -> None:
        self.pause_s = pause_s
        self.may_be_texts = may_be_texts
        super().__init__(said)


class TextsRefused(UpstreamUnavailable):
    """The embedder does not take these texts."""


class _Item(msgspec.Struct):
    embedding: list[float]
    index: int | None = None


class _Answer(msgspec.Struct):
    data: list[_Item]


class Embedder:
    """One server and model, asked for one batch at a time; a context manager."""

    def __init__(
        self,
        url: str,
        *,
        model: str | None,
        user_agent: str,
        key: str | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.url = url
        self._model = model
        self._timeout_s = timeout_s
        self._headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self._http = HttpClient(user_agent=user_agent, allow_private_hosts=True)

    @classmethod
    def from_settings(cls, settings: Settings, url: str, model: str | None) -> Self:
        """Return the embedder of a search, with the key that the settings name for its host."""
        key = find_key(settings, url, os.environ)
        return cls(url, model=model, user_agent=settings.user_agent, key=key)

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._http.__aexit__(*error)

    async def embed(self, texts: Sequence[str], *, dimensions: int | None) -> list[Embedding]:
        """Return an embedding for each text, in their order, of so many numbers if that is known.

        Raises `EmbedderUnavailable` or `TextsRefused`.
        """
        numbers = len(texts) * (dimensions or MOST_NUMBERS)
        asked: dict[str, object] = {"input": list(texts)}
        if self._model is not None:
            asked["model"] = self._model
        try:
            reply = await self._http.post_json(
                self.url,
                msgspec.json.encode(asked),
                max_bytes=min(MAX_ANSWER_BYTES, FRAME_BYTES + numbers * NUMBER_BYTES),
                timeout_s=self._timeout_s,
                headers=self._headers,
            )
        except HttpFailure as error:
            may_be_texts = error.reason == "timed_out"
            raise EmbedderUnavailable(str(error), may_be_texts=may_be_texts) from error
        if reply.status != httpx.codes.OK:
            self._refuse(reply)
        return read_answer(reply.body, number=len(texts), dimensions=dimensions)

    def _refuse(self, reply: Reply) -> None:
        """Raise what a status other than 200 means."""
        said = f"{self.url} answers {reply.status}: {_first_words(reply.body)}"
        if reply.status in _REFUSES_TEXTS:
            raise TextsRefused(said)
        pause_s = retry_after_s(reply.headers, now=datetime.now(UTC), cap_s=MAX_PAUSE_S)
        raise EmbedderUnavailable(
            said, pause_s=pause_s, may_be_texts=httpx.codes.is_server_error(reply.status)
        )


def read_answer(body: bytes, *, number: int, dimensions: int | None) -> list[Embedding]:
    """Read an answer, and see that it is one embedding for each text, in their order.

    Raises `EmbedderUnavailable`, since another answer to the same question may be right.
    """
    try:
        items = msgspec.json.decode(body, type=_Answer).data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EmbedderUnavailable(f"the embedder's answer cannot be read: {error}") from error
    if len(items) != number:
        raise EmbedderUnavailable(f"the embedder answers {len(items)} of {number} texts")
    places = [place if item.index is None else item.index for place, item in enumerate(items)]
    if sorted(places) != list(range(number)):
        raise EmbedderUnavailable("the embedder's answer does not say which text is which")
    ordered: list[Embedding] = [[]] * number
    for place, item in zip(places, items, strict=True):
        _check(item.embedding, dimensions or len(items[0].embedding))
        ordered[place] = item.embedding
    return ordered


def _check(embedding: Embedding, dimensions: int) -> None:
    if len(embedding) != dimensions or not embedding:
        raise EmbedderUnavailable(
            f"the embedder answers with {len(embedding)} numbers, not {dimensions}: "
            "is it another model?"
        )
    if not all(abs(number) <= MAX_NUMBER for number in embedding):  # not of NaN, either
        raise EmbedderUnavailable("the embedder answers with a number that is none, or too large")
    if not math.hypot(*embedding) >= MIN_LENGTH:
        raise EmbedderUnavailable("the embedder answers with nothing but zeros")


def full_url(given: str) -> str:
    """Return the URL to ask, of which the end may be left out; raises `UsageError`."""
    try:
        parts = urlsplit(given)
        is_fit = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:  # half an address, or a port beyond the last
        is_fit = False
    if not is_fit or parts.fragment or not given.isprintable() or " " in given:
        raise UsageError(f"{given!r} is no URL like http://127.0.0.1:11434/v1/embeddings.")
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            "The URL of an embedder is stored, so it has no password: STANDPIPE_EMBEDDER_KEYS "
            "says where a key is."
        )
    path = parts.path.rstrip("/")
    if not path:
        path = "/v1/embeddings"
    elif path.endswith("/v1"):
        path += "/embeddings"
    return parts._replace(path=path).geturl()


def find_key(settings: Settings, url: str, environ: Mapping[str, str]) -> str | None:
    """Return the key for an embedder's host, if the settings name a variable that holds it."""
    parts = urlsplit(url)
    name = dict(settings.embedder_keys).get((parts.hostname or "").lower())
    if name is None:
        return None
    if parts.scheme != "https" and parts.hostname not in _THIS_MACHINE:
        raise ConfigurationError(f"The key in {name} is not sent to {url}, which is no https.")
    key = environ.get(name, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise ConfigurationError(
            f"The variable {name}, which STANDPIPE_EMBEDDER_KEYS names for {parts.hostname}, "
            "holds no key."
        )
    return key


def _first_words(body: bytes) -> str:
    text = body[: 4 * _SAID_LENGTH].decode("utf-8", "replace").replace("\0", " ")
    return " ".join(text.split())[:_SAID_LENGTH]
