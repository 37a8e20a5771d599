"""Whoever answers over HTTP: a server that speaks OpenAI's protocol, asked for texts and logprobs.

This is the only file that opens a network connection, and it opens it to the URL that the user gave
and to nothing else: redirects are errors, and proxies of the environment are not used. The key in
the environment variable INSTIL_API_KEY, if there is one, is sent as a bearer token; it is written
nowhere, and is cut out of what the server says.

    write, plain text     POST URL/completions
    write, as a user      POST URL/chat/completions: the server has the chat template
    choose                POST URL/completions with echo and logprobs, which vLLM and others answer.
                          Servers that score only what they write themselves (llama.cpp, most hosted
                          models) are told apart, and get an error

Left out on purpose: streaming; several prompts in one request (servers batch what comes at once).
"""

from __future__ import annotations

import http.client
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from instil.errors import InstilError, one_line
from instil.evals.task import Answer, CannotAnswer, Item

T = TypeVar("T")
Scored = list[tuple[str, float | None]]
"""The tokens of a text and their logprobs; None where nothing stands before the token."""

KEY = "INSTIL_API_KEY"
BUSY = {408, 409, 425, 429, 500, 502, 503, 504}
"""Statuses of a server that may answer if it is asked again."""
LONGEST_WAIT = 60.0
"""Seconds between two tries, whatever the server asks for."""
LEAST = -9999.0
"""Logprob of a token that a server finds impossible; JSON has no infinity."""
TOO_LONG = re.compile(r"context|too long|maximum.{0,20}(length|tokens)", re.IGNORECASE)
HINTS = {
    401: f"; put the key into the environment variable {KEY}",
    403: f"; put a key that may use this model into the environment variable {KEY}",
    404: "; is the URL the part before /completions, and does the server have this model?",
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An `Answerer` over HTTP. Use `Endpoint.open`."""

    name: str
    url: str
    """Without a slash at its end: http://localhost:8000/v1"""
    model: str
    """As the server calls it."""
    parallel: int = 8
    """Requests at a time."""
    tries: int = 5
    """Of each request."""
    wait: float = 1.0
    """Seconds before the second try; each further one waits twice as long."""
    timeout: float = 300.0
    """Seconds without a byte from the server."""

    @classmethod
    def open(cls, name: str, url: str, model: str = "", **more: Any) -> Endpoint:
        """`model` may stand at the end of the URL, after a #, or be left out where the server has
        just one; then it is asked for the name."""
        url, _, at_end = url.partition("#")
        model = model or at_end
        try:
            parts = urlsplit(url)
            right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
            right = right and url.isascii() and url.isprintable() and " " not in url
        except ValueError:
            right = False
        if not right:
            raise InstilError(
                f"{url!r}: is not the URL of an endpoint; give one such as http://localhost:8000/v1"
            )
        if parts.username or parts.password or parts.query:
            raise InstilError(
                f"the URL of {parts.hostname} has a user, a password, or something after a ?, and "
                f"would be written into results; leave that out, and put a key into {KEY}"
            )
        base = url.rstrip("/").removesuffix("/completions").removesuffix("/chat")
        found = cls(name, base, model, **more)
        return found if model else replace(found, model=found._only_model())

    @property
    def key(self) -> str:
        """URL and model. That another model now has this name cannot be seen from here."""
        return f"{self.url} {self.model}"

    def write(
        self,
        items: Sequence[Item],
        *,
        max_tokens: int,
        first_line: bool,
        temperature: float,
        chat: bool,
        seed: int,
    ) -> Iterator[Answer | None]:
        """One text for each item; where the context is too short, with fewer shots."""
        settings: dict[str, Any] = {"model": self.model, "max_tokens": max_tokens, "seed": seed}
        settings |= {"temperature": temperature} | ({"stop": ["\n"]} if first_line else {})

        def ask(prompt: str) -> str:
            user = {"role": "user", "content": prompt}
            path = "/chat/completions" if chat else "/completions"
            asked = {"messages": [user]} if chat else {"prompt": prompt}
            reply = self._request(path, settings | asked)
            choice = self._choice(path, reply)
            written = (reply.get("usage") or {}).get("completion_tokens", max_tokens)
            if choice.get("finish_reason") == "length" and written < max_tokens:
                raise Refused(f"the context ends {max_tokens - written} tokens too early", True)
            said = choice.get("message") if chat else choice
            text = said.get("content" if chat else "text", "") if isinstance(said, dict) else None
            if text is None and chat and said:  # a model that had nothing to say
                text = ""
            return text if isinstance(text, str) else self._strange(path, reply)

        def answer(item: Item) -> Answer:
            text, dropped = self._fitting(item, ask)
            line = text.split("\n")[0] if first_line else text
            return Answer(text=line.strip(), dropped=dropped)

        return self._all(answer, items)

    def choose(self, items: Sequence[Item]) -> Iterator[Answer | None]:
        """The logprobs of each item's choices.

        The prompt is scored alone, too, and a choice begins where the tokens of the two part. Not
        by `text_offset`: it counts the letters of decoded tokens, and drifts where a server decodes
        a begin token, a blank or a part of a letter otherwise than it was written.

        Where a server puts nothing before an empty prompt, the first token has no logprob. It is
        left out if all choices begin with the same, and is an error if not.
        """

        def answer(item: Item) -> Answer:
            def ask(prompt: str) -> list[Scored]:
                before = self._scored(prompt) if prompt else []
                scored = [self._scored(prompt + choice) for choice in item.choices]
                return [tokens[_alike(before, tokens) :] for tokens in scored]

            scored, dropped = self._fitting(item, ask)
            if len({s[0][0] for s in scored if s and s[0][1] is None}) > 1:
                raise CannotAnswer(
                    f"{self.url}: {self.model} has no logprob for the first token of a text, and "
                    f"the choices of item {item.id} begin differently; leave this task out, or ask "
                    "a model directory"
                )
            known = [[logprob for _, logprob in s if logprob is not None] for s in scored]
            if not all(known):
                raise InstilError(f"{self.url}: item {item.id}: a choice without a scored token")
            return Answer(
                logprobs=tuple(float(sum(logprobs)) for logprobs in known),
                tokens=tuple(map(len, known)),
                dropped=dropped,
            )

        return self._all(answer, items)

    def _scored(self, text: str) -> Scored:
        """Every token of a text with its logprob."""
        path = "/completions"
        asked = {"model": self.model, "prompt": text, "max_tokens": 0, "temperature": 0}
        try:
            reply = self._request(path, asked | {"echo": True, "logprobs": 1})
        except Refused as error:
            if error.too_long:
                raise
            self._no_logprobs(str(error))
        choice = self._choice(path, reply)
        found = choice.get("logprobs") or {}
        tokens, logprobs = found.get("tokens"), found.get("token_logprobs")
        if not isinstance(tokens, list) or not isinstance(logprobs, list):
            self._no_logprobs("it sends no logprobs")
        # a server that cannot write nothing has what it wrote at the end
        count = (reply.get("usage") or {}).get("prompt_tokens", len(tokens))
        tokens, logprobs = tokens[:count], logprobs[:count]
        if text not in str(choice.get("text")) or not len(tokens) == len(logprobs) == count:
            self._no_logprobs("it scores only what it writes itself")
        if not all(isinstance(logprob, int | float) for logprob in logprobs[1:]):
            self._no_logprobs("it leaves tokens of the prompt without a logprob")
        finite = [None if logprob is None else max(float(logprob), LEAST) for logprob in logprobs]
        return list(zip(map(str, tokens), finite, strict=True))

    def _only_model(self) -> str:
        reply = self._request("/models", None)
        rows = reply.get("data") or []
        names = [str(row.get("id")) for row in rows if isinstance(row, dict)]
        if len(names) != 1:
            raise InstilError(
                f"{self.url}: the server has {one_line(', '.join(names)) or 'no models'}; say which"
            )
        return names[0]

    def _fitting(self, item: Item, ask: Callable[[str], T]) -> tuple[T, int]:
        """What `ask` makes of the prompt with as many shots as fit; how many were left out."""
        for dropped in range(len(item.shots) + 1):
            try:
                return ask(item.prompt(without=dropped)), dropped
            except Refused as error:
                if not error.too_long:
                    raise
                refusal = error
        raise CannotAnswer(
            f"item {item.id} does not fit without any shots: {refusal}; serve the model with a "
            "longer context, or leave this task out"
        )

    def _all(self, ask: Callable[[Item], Answer], items: Sequence[Item]) -> Iterator[Answer | None]:
        """Ask for all items, so many at a time. After the first that fails no other is begun: those
        that were follow, None for the rest, then the error."""
        failed: Exception | None = None
        with ThreadPoolExecutor(self.parallel) as threads:
            asked = [threads.submit(ask, item) for item in items]
            try:
                for one in asked:
                    answer = None
                    try:
                        answer = one.result()
                    except CancelledError:
                        pass
                    except Exception as error:
                        failed = failed or error
                        threads.shutdown(wait=False, cancel_futures=True)
                    yield answer
            finally:
                threads.shutdown(wait=False, cancel_futures=True)
        if failed:
            raise failed

    def _request(self, path: str, asked: Mapping[str, Any] | None) -> dict[str, Any]:
        """The JSON object that the server answers; asked again while it is busy or breaks off."""
        body = None if asked is None else json.dumps(asked).encode()
        for attempt in range(self.tries):
            after = ""
            try:
                status, after, text = self._once(path, body)
                if status == 200:
                    return self._object(path, text)
                what = f"status {status}: {_message(text)}"
                if status not in BUSY:
                    hint = f"; it points to {one_line(after)}" if after else HINTS.get(status, "")
                    too_long = status in (400, 413, 422) and bool(TOO_LONG.search(_message(text)))
                    raise Refused(f"{self.url}{path}: {self._clean(what)}{hint}", too_long)
            except (OSError, http.client.HTTPException) as error:
                what = f"{type(error).__name__} {error}".strip()
            if attempt + 1 < self.tries:
                time.sleep(_pause(after, self.wait * 2**attempt))
        raise InstilError(
            f"{self.url}{path}: {self._clean(what)}; asked {self.tries} times. Start the same "
            "command again when the server is well: what was answered is kept"
        )

    def _once(self, path: str, body: bytes | None) -> tuple[int, str, bytes]:
        """Status, the header that says when or where else to ask, body."""
        parts = urlsplit(self.url)
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=min(20.0, self.timeout))
        try:
            try:
                connection.connect()
            except OSError as error:
                raise InstilError(
                    f"{self.url}: cannot be reached ({error}); is the server up, and the URL right?"
                ) from error
            connection.sock.settimeout(self.timeout)
            method = "GET" if body is None else "POST"
            headers = {"Content-Type": "application/json", **_authorization()}
            connection.request(method, parts.path + path, body, headers)
            reply = connection.getresponse()
            header = "Location" if 300 <= reply.status < 400 else "Retry-After"
            return reply.status, reply.headers.get(header, ""), reply.read()
        finally:
            connection.close()

    def _object(self, path: str, text: bytes) -> dict[str, Any]:
        try:
            reply = json.loads(text)
        except ValueError:
            reply = text.decode(errors="replace")
        return reply if isinstance(reply, dict) else self._strange(path, reply)

    def _choice(self, path: str, reply: Mapping[str, Any]) -> dict[str, Any]:
        """The one answer in a reply."""
        choices = reply.get("choices")
        if isinstance(choices, list) and choices and isinstance(choices[0], dict):
            return choices[0]
        return self._strange(path, reply)

    def _strange(self, path: str, reply: object) -> NoReturn:
        raise InstilError(
            f"{self.url}{path}: the server does not answer as OpenAI's protocol has it: "
            f"{self._clean(one_line(reply, 200))}"
        )

    def _no_logprobs(self, why: str) -> NoReturn:
        raise CannotAnswer(
            f"{self.url}: gives no logprobs of a prompt ({why}). Tasks with choices (TruthfulQA "
            "MC, Winogender, CrowS-Pairs, HellaSwag, SST, RTE) need them: leave those out, serve "
            "the model with vLLM, or give its directory"
        )

    def _clean(self, text: str) -> str:
        """What a server says, without the key."""
        key = os.environ.get(KEY, "").strip()
        return text.replace(key, "***") if key else text


class Refused(InstilError):
    """The server does not want this request, and asking again would not help."""

    def __init__(self, message: str, too_long: bool) -> None:
        super().__init__(message)
        self.too_long = too_long


def _alike(a: Scored, b: Scored) -> int:
    """How many tokens at their beginnings are the same."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x[0] != y[0]), min(len(a), len(b)))


def _authorization() -> dict[str, str]:
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):  # http.client would print it
        raise InstilError(f"{KEY}: has a letter that no key has; set it again")
    return {"Authorization": f"Bearer {key}"} if key else {}


def _message(text: bytes) -> str:
    """What an error reply says: its message, else its text."""
    try:
        found = json.loads(text)
        found = found.get("error", found)
        message = found["message"] if isinstance(found, dict) else found
    except (ValueError, KeyError, AttributeError):
        message = text.decode(errors="replace")
    return one_line(message, 300)


def _pause(after: str, wait: float) -> float:
    """Seconds until the next try: what the server asks for in seconds, else `wait`."""
    asked = float(after) if re.fullmatch(r"\d{1,6}(\.\d+)?", after) else wait
    return min(asked, LONGEST_WAIT)
