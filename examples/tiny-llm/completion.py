"""A request for text, checked, and the text that answers it, byte by byte. Knows nothing of HTTP but its statuses."""
import codecs
import threading

import torch

MAX_TOKENS = 4096


class RequestError(Exception):
    """A request that cannot be answered, in OpenAI's form."""

    def __init__(self, status, message, param=None, code=None):
        super().__init__(message)
        self.status = status
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


class Generator:
    """Draws bytes from the model, one at a time, for any number of requests."""

    def __init__(self, model):
        self.model = model.eval()
        self.device = next(model.parameters()).device
        # One step at a time: side by side, each thread's arithmetic would start threads of its own, all for the
        # same cores. Requests take turns byte by byte, so none waits for another to end.
        self.turn = threading.Lock()

    @torch.inference_mode()
    def step(self, tokens, past):
        with self.turn:
            logits, past = self.model(torch.tensor([tokens], device=self.device), past)
            return logits[0, -1].cpu(), past

    def tokens(self, prompt, temperature, seed):
        """Byte after byte without end. A full context goes on from its newer half, so that text may be longer."""
        context = self.model.config.max_position_embeddings
        random = torch.Generator()
        random.manual_seed(seed) if seed is not None else random.seed()
        history, past, held = list(prompt)[-context:], None, 0
        pending = history
        while True:
            if held + len(pending) > context:
                pending, past, held = history[-(context // 2):], None, 0
            logits, past = self.step(pending, past)
            held += len(pending)
            if temperature == 0:
                token = int(logits.argmax())
            else:
                weights = (logits / temperature).softmax(dim=-1)
                token = int(torch.multinomial(weights, 1, generator=random))
            yield token
            history = (history + [token])[-context:]
            pending = [token]


def field(body, name, kind, default, low=None, high=None):
    """A value of the request, checked; null is absent, as in OpenAI's interface."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        names = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise RequestError(400, f"'{name}' must be of type {names}", name, "invalid_type")
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        raise RequestError(400, f"'{name}' must be from {low} to {high}", name, "invalid_value")
    return value


def prompt_of_completion(body):
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt.encode(errors="replace")
    if isinstance(prompt, list) and all(type(token) is int and 0 <= token < 256 for token in prompt):
        return bytes(prompt)  # tokens are bytes
    raise RequestError(400, "'prompt' must be one text, or a list of tokens from 0 to 255", "prompt", "invalid_type")


def prompt_of_chat(body):
    """A base model knows no roles: what was said, a line each."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError(400, "'messages' must be a list of at least one message", "messages", "invalid_type")
    lines = []
    for i, message in enumerate(messages):
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            parts = [part.get("text") if isinstance(part, dict) else None for part in content]
            content = "".join(parts) if all(isinstance(part, str) for part in parts) else None
        if not isinstance(content, str) or not isinstance(message.get("role"), str):
            raise RequestError(400, f"'messages[{i}]' must have a 'role' and a text as 'content'", "messages",
                               "invalid_value")
        lines.append(content + "\n")
    return "".join(lines).encode(errors="replace")


class Request:
    """What one completion asks for."""

    def __init__(self, body, chat):
        if not isinstance(body, dict):
            raise RequestError(400, "the body must be a JSON object")
        self.chat = chat
        # Without a prompt the model starts as after a line's end.
        self.prompt = (prompt_of_chat(body) if chat else prompt_of_completion(body)) or b"\n"
        newer = field(body, "max_completion_tokens", int, None, 1, MAX_TOKENS) if chat else None
        self.max_tokens = newer or field(body, "max_tokens", int, 64, 1, MAX_TOKENS)
        self.temperature = field(body, "temperature", (int, float), 1.0, 0, 2)
        self.seed = field(body, "seed", int, None, -(1 << 63), (1 << 63) - 1)
        self.stream = field(body, "stream", bool, False)
        self.stream_usage = field(field(body, "stream_options", dict, {}), "include_usage", bool, False)
        field(body, "n", int, 1, 1, 1)
        stop = field(body, "stop", (str, list), [])
        self.stop = [stop] if isinstance(stop, str) else stop
        if len(self.stop) > 4 or not all(isinstance(text, str) and text for text in self.stop):
            raise RequestError(400, "'stop' must be a text, or up to four", "stop", "invalid_value")


class Completion:
    """The text of one answer as it grows. Iterating gives its pieces; finish_reason and counts stand at the end."""

    def __init__(self, generator, request):
        self.generator, self.request = generator, request
        self.count, self.finish_reason = 0, "length"

    def __iter__(self):
        request = self.request
        decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a character may take several tokens
        held = ""  # text that may turn out to be the begin of a stop text, which is not to be sent
        for token in self.generator.tokens(request.prompt, request.temperature, request.seed):
            self.count += 1
            last = self.count == request.max_tokens
            held += decoder.decode(bytes([token]), final=last)
            found = [place for place in map(held.find, request.stop) if place >= 0]
            if found:
                self.finish_reason = "stop"
                yield held[:min(found)]
                return
            keep = 0 if last else max((size for text in request.stop for size in range(1, len(text))
                                       if held.endswith(text[:size])), default=0)
            yield held[:len(held) - keep]  # empty at times: a chance to see that the client has left
            held = held[len(held) - keep:]
            if last:
                return

    def usage(self):
        prompt = len(self.request.prompt)
        return {"prompt_tokens": prompt, "completion_tokens": self.count, "total_tokens": prompt + self.count}
