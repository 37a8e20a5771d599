"""evals/endpoint.py against a small server on this machine: what is sent, what comes of it."""

from __future__ import annotations

import asyncio
import json
import math
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from instil.errors import InstilError
from instil.evals.answers import ask
from instil.evals.endpoint import KEY, Endpoint
from instil.evals.task import Answer, CannotAnswer, Item, Task, each


class Stub:
    """A server whose model says the prompt's last word, and finds a token of n letters e^-n likely.

    Tokens are words with the blank before them. Settings say how it departs from that.
    """

    def __init__(self) -> None:
        self.begin_again()

    def begin_again(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.keys: list[str | None] = []
        self.replies: list[Response] = []
        """Given before anything else, in this order."""
        self.begin = "<s>"
        """Token that is put before a text; "" for none."""
        self.scores = "prompt"
        """Or "written": only what it writes; "nothing": it does not know logprobs."""
        self.writes = 0
        """Tokens that it writes although none was wanted."""
        self.context = 10_000
        self.models = ["tiny"]
        self.now = self.most = 0
        """Requests at a time."""

    async def answer(self, request: Request) -> Response:
        self.keys.append(request.headers.get("authorization"))
        if request.url.path == "/v1/models":
            return JSONResponse({"data": [{"id": name} for name in self.models]})
        asked = await request.json()
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.005)
        self.now -= 1
        self.asked.append((request.url.path, asked))
        if self.replies:
            return self.replies.pop(0)
        prompt = asked["messages"][0]["content"] if "messages" in asked else asked["prompt"]
        if len(tokens(prompt)) > self.context:
            message = f"This model's maximum context length is {self.context} tokens."
            return JSONResponse({"error": {"message": message}}, 400)
        if asked.get("echo"):
            return JSONResponse(self.scored(prompt))
        text = f" {prompt.split()[-1]} \nmore"
        if "messages" in asked:
            return JSONResponse({"choices": [{"message": {"content": f"chat{text}"}}]})
        return JSONResponse({"choices": [{"text": text}]})

    def scored(self, prompt: str) -> dict[str, Any]:
        own = tokens(prompt)
        listed = [self.begin] * bool(self.begin) + own
        usage = {"prompt_tokens": len(listed)}
        listed += [" more"] * self.writes
        choice: dict[str, Any] = {"text": prompt + " more" * self.writes}
        if self.scores == "written":
            choice["logprobs"] = {"tokens": [" more"], "token_logprobs": [-1.0]}
        elif self.scores == "prompt":
            logprobs = [None, *(-float(len(token)) for token in listed[1:])]
            # offsets that count the begin token, as they do where it is decoded
            offsets = [sum(map(len, listed[:i])) for i in range(len(listed))]
            choice["logprobs"] = {
                "tokens": listed,
                "token_logprobs": logprobs,
                "text_offset": offsets,
            }
        return {"choices": [choice], "usage": usage}


def tokens(text: str) -> list[str]:
    return re.findall(r"\s?\S+|\s", text)


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Stub, str]]:
    stub = Stub()
    app = Starlette(routes=[Route("/{path:path}", stub.answer, methods=["GET", "POST"])])
    config = uvicorn.Config(app, "127.0.0.1", 0, log_config=None)
    listening, running = config.bind_socket(), uvicorn.Server(config)
    thread = threading.Thread(target=running.run, args=([listening],), daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not running.started and time.monotonic() < deadline:
        time.sleep(0.01)
    yield stub, f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    running.should_exit = True
    thread.join(10)
    listening.close()


@pytest.fixture
def stub(server: tuple[Stub, str], monkeypatch: pytest.MonkeyPatch) -> Stub:
    monkeypatch.delenv(KEY, raising=False)
    server[0].begin_again()
    return server[0]


@pytest.fixture
def endpoint(server: tuple[Stub, str], stub: Stub) -> Endpoint:
    return Endpoint.open("ours", server[1], "tiny", wait=0.001)


def write(endpoint: Endpoint, *items: Item, **more: Any) -> list[Answer | None]:
    settings: dict[str, Any] = {
        "max_tokens": 8,
        "first_line": True,
        "temperature": 0.0,
        "chat": False,
        "seed": 3,
    }
    return list(endpoint.write(items, **settings | more))


def item(text: str, *choices: str, name: str = "1", shots: tuple[str, ...] = ()) -> Item:
    return Item(id=name, text=text, choices=choices, shots=shots)


def test_plain_text_goes_to_completions(stub: Stub, endpoint: Endpoint) -> None:
    assert write(endpoint, item("Where is Dorn?")) == [Answer(text="Dorn?")]
    settings = {"model": "tiny", "max_tokens": 8, "temperature": 0.0, "stop": ["\n"], "seed": 3}
    assert stub.asked == [("/v1/completions", settings | {"prompt": "Where is Dorn?"})]


def test_a_users_prompt_goes_to_chat_completions(stub: Stub, endpoint: Endpoint) -> None:
    found = write(endpoint, item("Hello there"), chat=True, first_line=False)
    assert found == [Answer(text="chat there \nmore")]
    path, asked = stub.asked[0]
    assert path == "/v1/chat/completions" and "stop" not in asked
    assert asked["messages"] == [{"role": "user", "content": "Hello there"}]


def test_a_model_that_has_nothing_to_say(stub: Stub, endpoint: Endpoint) -> None:
    stub.replies = [JSONResponse({"choices": [{"message": {"content": None}}]})]
    assert write(endpoint, item("x"), chat=True) == [Answer(text="")]


def test_answers_come_in_the_order_of_the_items(stub: Stub, endpoint: Endpoint) -> None:
    found = write(endpoint, *(item(f"say {n}", name=str(n)) for n in range(40)))
    assert [answer.text for answer in found] == [str(n) for n in range(40)]
    assert 1 < stub.most <= endpoint.parallel


@pytest.mark.parametrize("begin", ["<s>", ""])
@pytest.mark.parametrize("writes", [0, 1])
def test_the_logprobs_of_choices(stub: Stub, endpoint: Endpoint, begin: str, writes: int) -> None:
    # " yes" has 4 letters; " no way" is " no" and " way", 3 + 4
    stub.begin, stub.writes = begin, writes
    found = list(endpoint.choose([item("Is it so?", " yes", " no way")]))
    assert found == [Answer(logprobs=(-4.0, -7.0), tokens=(1, 2))]
    assert {path for path, _ in stub.asked} == {"/v1/completions"}
    assert [a["prompt"] for _, a in stub.asked] == [
        "Is it so?",
        "Is it so? yes",
        "Is it so? no way",
    ]
    assert all(a["max_tokens"] == 0 and a["echo"] and a["logprobs"] == 1 for _, a in stub.asked)


def test_a_blank_at_the_end_of_the_prompt_belongs_to_the_choice(
    stub: Stub, endpoint: Endpoint
) -> None:
    # alone "so? " ends in a token " "; with the choice it is part of " yes"
    assert next(endpoint.choose([item("so? ", "yes", "no")])).logprobs == (-4.0, -3.0)


def test_sentences_without_a_prompt(stub: Stub, endpoint: Endpoint) -> None:
    pair = item("", "He is here", "She is here")
    # "He" 2 or "She" 3, " is" 3, " here" 5: after a begin token every word counts
    assert list(endpoint.choose([pair])) == [Answer(logprobs=(-10.0, -11.0), tokens=(3, 3))]
    stub.begin = ""  # then the first word has no logprob
    same = item("", "The he is", "The she is")
    assert list(endpoint.choose([same])) == [Answer(logprobs=(-6.0, -7.0), tokens=(2, 2))]
    with pytest.raises(InstilError, match="choices of item 1 begin differently"):
        list(endpoint.choose([pair]))


@pytest.mark.parametrize(
    ("scores", "why"),
    [("written", "only what it writes itself"), ("nothing", "sends no logprobs")],
)
def test_a_server_that_does_not_score_prompts(
    stub: Stub, endpoint: Endpoint, scores: str, why: str
) -> None:
    stub.scores = scores
    with pytest.raises(InstilError, match=f"{why}.*leave those out"):
        list(endpoint.choose([item("Is it?", " yes", " no")]))


def test_a_server_that_refuses_to_echo(stub: Stub, endpoint: Endpoint) -> None:
    stub.replies = [JSONResponse({"error": {"message": "echo is not supported"}}, 400)]
    with pytest.raises(InstilError, match=r"no logprobs of a prompt .*echo is not supported"):
        list(endpoint.choose([item("Is it?", " yes", " no")]))


def test_shots_are_left_out_until_the_rest_fits(stub: Stub, endpoint: Endpoint) -> None:
    shots = ("one two ", "three four ", "five ")
    stub.context = 4  # with all it is 7 tokens, without the first 5, without two 3
    asked = item("so it", shots=shots)
    assert write(endpoint, asked) == [Answer(text="it", dropped=2)]
    # a choice of one more token still fits
    scored = list(endpoint.choose([item("so it", " is", shots=shots)]))
    assert scored == [Answer(logprobs=(-3.0,), tokens=(1,), dropped=2)]
    stub.context = 1
    with pytest.raises(InstilError, match=r"item 1 does not fit without any shots: .*maximum cont"):
        write(endpoint, asked)


def test_an_answer_that_the_context_cuts_short_wants_fewer_shots(
    stub: Stub, endpoint: Endpoint
) -> None:
    def reply(written: int) -> Response:
        choice = {"text": " so", "finish_reason": "length"}
        return JSONResponse({"choices": [choice], "usage": {"completion_tokens": written}})

    stub.replies = [reply(7), reply(8)]  # of 8 tokens
    assert write(endpoint, item("x", shots=("one",))) == [Answer(text="so", dropped=1)]
    stub.replies = [reply(7)]
    with pytest.raises(InstilError, match="without any shots: the context ends 1 tokens too early"):
        write(endpoint, item("x"))


def test_a_busy_server_is_asked_again(stub: Stub, endpoint: Endpoint) -> None:
    stub.replies = [
        JSONResponse({"error": {"message": "slow down"}}, 429, {"Retry-After": "0"}),
        PlainTextResponse("starting", 503),
    ]
    assert write(endpoint, item("x y")) == [Answer(text="y")]
    assert len(stub.asked) == 3


def test_a_server_that_stays_busy_is_given_up(stub: Stub, endpoint: Endpoint) -> None:
    stub.replies = [PlainTextResponse("overloaded", 503) for _ in range(9)]
    with pytest.raises(
        InstilError, match=r"/v1/completions: status 503: overloaded; asked 5 times"
    ):
        write(endpoint, item("x"))
    assert len(stub.asked) == 5


def test_a_server_that_is_silent_is_given_up(stub: Stub, server: tuple[Stub, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        endpoint = Endpoint.open("ours", url, "tiny", wait=0.001, tries=2, timeout=0.05)
        with pytest.raises(InstilError, match=rf"{url}/completions: TimeoutError .*asked 2 times"):
            write(endpoint, item("x"))


def test_a_server_that_is_not_there(stub: Stub) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}/v1"
    with pytest.raises(InstilError, match=rf"{url}: cannot be reached .*is the server up"):
        write(Endpoint.open("ours", url, "tiny"), item("x"))


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (JSONResponse({"error": {"message": "no such model"}}, 404), "404: no such model.*URL the"),
        (JSONResponse({"detail": "bad"}, 422), 'status 422: {"detail":"bad"}'),
        (Response(status_code=307, headers={"Location": "http://elsewhere/"}), "http://elsewhere/"),
        (PlainTextResponse("<html>"), "does not answer as OpenAI's protocol has it: <html>"),
        (JSONResponse([1]), r"protocol has it: \[1\]"),
        (JSONResponse({"choices": []}), "protocol has it"),
        (JSONResponse({"choices": [{"text": 5}]}), "protocol has it"),
        (JSONResponse({"choices": ["text"]}), "protocol has it"),
    ],
)
def test_what_cannot_be_mended_by_asking_again(
    stub: Stub, endpoint: Endpoint, reply: Response, message: str
) -> None:
    stub.replies = [reply]
    with pytest.raises(InstilError, match=message):
        write(endpoint, item("x"))
    assert len(stub.asked) == 1


def test_the_key_is_sent_and_never_shown(
    stub: Stub, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert write(endpoint, item("x")) and stub.keys == [None]
    monkeypatch.setenv(KEY, "s3cret\n")
    write(endpoint, item("x"))
    assert stub.keys[-1] == "Bearer s3cret"
    stub.replies = [JSONResponse({"error": {"message": "bad key s3cret"}}, 401)]
    with pytest.raises(InstilError, match=rf"bad key \*\*\*; put the key into .* {KEY}"):
        write(endpoint, item("x"))
    assert "s3cret" not in repr(endpoint) + endpoint.key
    monkeypatch.setenv(KEY, "s3c\nret")
    with pytest.raises(InstilError, match=f"{KEY}: has a letter that no key has") as found:
        write(endpoint, item("x"))
    assert "ret" not in str(found.value)


def test_a_url_and_the_model_after_it(server: tuple[Stub, str], stub: Stub) -> None:
    url = server[1]
    for given in (url, f"{url}/", f"{url}/completions", f"{url}/chat/completions", f"{url}#tiny"):
        found = Endpoint.open("ours", given)
        assert (found.url, found.model, found.key) == (url, "tiny", f"{url} tiny")
    stub.models = ["one", "two"]
    with pytest.raises(InstilError, match="the server has one, two; say which"):
        Endpoint.open("ours", url)
    assert Endpoint.open("ours", f"{url}#two").model == "two"


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://x/v1", "http://", "http://x:99999", "http://x/a b"]
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(InstilError, match="is not the URL of an endpoint"):
        Endpoint.open("ours", url, "tiny")


def test_a_url_must_not_hold_secrets() -> None:
    for url in ("http://me:s3cret@host/v1", "http://host/v1?key=s3cret"):
        with pytest.raises(InstilError, match="of host has a user") as found:
            Endpoint.open("ours", url, "tiny")
        assert "s3cret" not in str(found.value)


def test_a_logprob_of_minus_infinity_is_a_number(stub: Stub, endpoint: Endpoint) -> None:
    def reply(text: str, *logprobs: float) -> Response:
        scored = {"tokens": tokens(text), "token_logprobs": [None, *logprobs]}
        body = json.dumps({"choices": [{"text": text, "logprobs": scored}]})
        return Response(body, media_type="application/json")

    stub.replies = [reply("a b", -1.0), reply("a b c", -1.0, -math.inf)]
    assert next(endpoint.choose([item("a b", " c")])).logprobs == (-9999.0,)


def test_what_was_answered_before_an_error_is_not_asked_again(
    endpoint: Endpoint, stub: Stub, tmp_path: Path
) -> None:
    items = [item(text, name=text) for text in ("one", "far too long", "two")]
    grade = each(lambda item, answer: {"right": float(answer.text == item.text)})
    task = Task(name="t", setting="s", items=items, grade=grade, main="right", max_tokens=4)
    alone = replace(endpoint, parallel=1)
    stub.context = 1
    with pytest.raises(CannotAnswer, match="far too long does not fit"):
        ask(alone, task, tmp_path, 0)
    stub.context = 10
    assert [answer.text for answer in ask(alone, task, tmp_path, 0)] == ["one", "long", "two"]
    prompts = [asked["prompt"] for _, asked in stub.asked]
    assert sorted(prompts) == ["far too long", "far too long", "one", "two"]


def test_what_comes_after_an_error_is_kept_where_it_is_there_already(
    endpoint: Endpoint, stub: Stub
) -> None:
    stub.context = 1
    items = [item(text, name=text) for text in ("far too long", "one", "two")]
    settings: dict[str, Any] = {"first_line": True, "temperature": 0.0, "chat": False, "seed": 3}
    found = iter(endpoint.write(items, max_tokens=8, **settings))
    assert next(found) is None
    assert [answer and answer.text for answer in (next(found), next(found))] == ["one", "two"]
    with pytest.raises(CannotAnswer, match="far too long does not fit"):
        next(found)
