"""Language models behind the OpenAI protocol: chat and plain completions, by whoever serves them.

Text in, text out, with the tokens that the server counted.  For judges and served simulators; a policy
that is trained needs token ids and log-probabilities, which this protocol does not promise (rule 2), so
no policy is asked here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Iterator, Literal, Mapping, Sequence, TypeVar

from zerosearch.remote import Answer, Call, Purse, Remote, RemoteFailure, Service, read_json
from zerosearch.remote_batch import Keep

T = TypeVar("T")
Protocol = Literal["chat", "completions"]
_PATHS: dict[str, str] = {"chat": "/chat/completions", "completions": "/completions"}
_NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "insufficient_balance")  # sent as "busy" by some
_MAX_DETAIL = 200  # characters of what a server says about a failure


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request to a model.

    user: what is asked.  system: said before it, for chats only.  max_tokens: of the reply.  temperature: 0
    is greedy.  seed: of this request's draws, None for the server's own.
    """

    user: str
    system: str = ""
    max_tokens: int = 256
    temperature: float = 0.0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model wrote.

    ended: whether it ended by itself, not at max_tokens.  counted: whether the server told the tokens read
    (n_prompt) and written (n_generated); both are 0 otherwise.
    """

    text: str
    ended: bool = True
    n_prompt: int = 0
    n_generated: int = 0
    counted: bool = False


def model_service(name: str, url: str, model: str, key_variable: str = "", **patience: Any) -> Service:
    """Return where a model is served.  name: for messages.  url: version included.  patience: fields of Service."""
    offers = f"a chat endpoint with the model {model!r}"
    advice = "check address (it ends in /v1 for most servers) and model name"
    return Service(name, url, key_variable, offers=offers, advice=advice, **patience)


class Chat:
    """A model on a server.

    service: from ``model_service``.  protocol: ``chat`` puts a prompt into the model's chat template,
    ``completions`` goes on from the bare text.  purse: pays, None for a server that costs nothing.
    """

    def __init__(self, service: Service, model: str, protocol: Protocol = "chat", purse: Purse | None = None):
        self.model, self.protocol, self.remote = model, protocol, Remote(service, purse)

    def ask_all(self, prompts: Sequence[Prompt], keep: Keep[Answer[Reply]] | None = None) -> Iterator[Answer[Reply]]:
        """Yield one Answer per prompt, in order; see ``Remote.ask_all``."""
        return self.remote.ask_all([self.call(prompt, lambda reply: reply) for prompt in prompts], keep)

    def call(self, prompt: Prompt, read: Callable[[Reply], T]) -> Call[T]:
        """Return the call for one prompt; read: makes its value of the reply, RemoteFailure where it cannot."""
        path = _PATHS[self.protocol]
        return Call(partial(_read, read=read, protocol=self.protocol), path, body=self._body(prompt), explain=_explain)

    def _body(self, prompt: Prompt) -> dict[str, Any]:
        text: dict[str, Any] = {"prompt": prompt.user}
        if self.protocol == "chat":
            said = [("system", prompt.system), ("user", prompt.user)]
            text = {"messages": [{"role": role, "content": words} for role, words in said if words]}
        elif prompt.system:
            raise ValueError("completions: expected a prompt without a system message, found one")
        drawn = {} if prompt.seed is None else {"seed": prompt.seed}
        limits = {"temperature": prompt.temperature, "max_tokens": prompt.max_tokens}
        return {"model": self.model, **text, **limits, **drawn}


def _read(content: bytes, read: Callable[[Reply], T], protocol: str) -> T:
    try:
        found = read_json(content)
        choice = found["choices"][0]
        text = choice["message"]["content"] if protocol == "chat" else choice["text"]
        ended = choice.get("finish_reason", "stop") != "length"
    except (KeyError, IndexError, TypeError, AttributeError):
        raise RemoteFailure("malformed") from None
    if not isinstance(text, str):
        raise RemoteFailure("malformed")
    return read(Reply(text, ended, *_usage(found.get("usage"))))


def _usage(found: object) -> tuple[int, int, bool]:
    """Return (tokens read, tokens written, True), or zeros and False where the server does not say."""
    counts = [found.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(found, Mapping) else []
    if len(counts) == 2 and all(type(n) is int and n >= 0 for n in counts):
        return counts[0], counts[1], True
    return 0, 0, False


def _explain(status: int, content: bytes) -> RemoteFailure | None:
    """Return the failure that the error message of a server makes of its status; None where it has none."""
    try:
        error = read_json(content)["error"]
        detail = " ".join(str(error["message"]).split())[:_MAX_DETAIL]
    except (RemoteFailure, KeyError, TypeError):
        return None
    if status == 429 and any(error.get(name) in _NO_CREDIT for name in ("code", "type")):
        return RemoteFailure("refused", detail=detail)
    return RemoteFailure("rejected", detail=detail) if status in (400, 413, 422) else None
