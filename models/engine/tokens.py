"""From a prompt to token ids, piece by piece, and from an answer's token ids to text.

The chat template is rendered once a day per sequence of roles (some write the date), with
placeholders for the contents: what it writes around them is parsed with its control tokens, what
stands between is never. So no text from outside can become a control token, and pieces that recur
(an ad's line, the instructions) are tokenised once. Training and serving share this class; it knows
nothing of vLLM.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import date
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from models.contract.prompt import Message, Prompt, Role

_ROLE_SEQUENCES = 256
_DECODER_CONTEXT = 8
_PROBE = ("Hello\n", "World")


class PromptTokenizer:
    """Tokenises prompts for one model. Not thread-safe.

    tokenizer: a `transformers` fast tokenizer with a chat template; it is not changed.
    cache_size: how many recurring pieces to remember; about 1 kB each.
    Raises ValueError for a tokenizer without a fast backend or a chat template.
    """

    def __init__(self, tokenizer: Any, cache_size: int = 20_000) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None or not getattr(tokenizer, "chat_template", None):
            raise ValueError("The model's tokenizer needs a fast backend and a chat template")
        self._tokenizer = tokenizer
        self._template_backend: Tokenizer = backend
        self._text_backend = _without_control_tokens(backend)
        self._recurring = lru_cache(cache_size)(self._text)
        self._frame = lru_cache(_ROLE_SEQUENCES)(self._render_frame)
        # Some tokenizers treat the start of a text specially (a space put before it); there a
        # message's pieces are tokenised as one text.
        first, second = _PROBE
        self._is_splittable = self._text(first) + self._text(second) == self._text(first + second)
        self._last: tuple[Prompt | None, list[int]] = (None, [])

    def encode(self, prompt: Prompt, at_most: int | None = None) -> list[int]:
        """Return the prompt's tokens, ending where the model's answer begins. Do not change them.

        Of a prompt with more than `at_most` tokens those up to the message that exceeds it are
        enough. Raises ValueError where the model's chat template does not take the roles.

        For ordinary text they equal what the tokenizer's own `apply_chat_template` gives, as long
        as pieces end where the tokenizer does not merge across (a line break before a word).
        """
        if prompt is self._last[0]:  # counted a moment ago
            return self._last[1]
        frame = self._frame(tuple(message.role for message in prompt.messages), date.today())
        tokens: list[int] = []
        for around, message in zip(frame, prompt.messages, strict=False):
            tokens += around
            for content in self._contents(message):
                tokens += content
            if at_most is not None and len(tokens) > at_most:
                return tokens
        tokens += frame[-1]
        self._last = (prompt, tokens)
        return tokens

    def longest(self, texts: Iterable[str]) -> int:
        """Return the most tokens that one of `texts`, which recur, has; 0 of none."""
        return max((len(self._recurring(text)) for text in texts), default=0)

    def answer_decoder(self, prompt_tokens: Sequence[int]) -> "AnswerDecoder":
        """Return a decoder for the answer to a prompt of these tokens."""
        return AnswerDecoder(self._template_backend, prompt_tokens[-_DECODER_CONTEXT:])

    def _contents(self, message: Message) -> Iterable[tuple[int, ...]]:
        if not self._is_splittable:
            return (self._text("".join(piece.text for piece in message.pieces)),)
        return (
            self._recurring(piece.text) if piece.recurs else self._text(piece.text)
            for piece in message.pieces
        )

    def _text(self, text: str) -> tuple[int, ...]:
        return tuple(self._text_backend.encode(text, add_special_tokens=False).ids)

    def _render_frame(self, roles: tuple[Role, ...], _: date) -> tuple[tuple[int, ...], ...]:
        """Return the tokens before, between and after the contents of messages with these roles.

        Raises ValueError when the template drops, repeats or reorders contents, or refuses the
        roles, as many do that do not alternate.
        """
        # Private-use characters: no template looks for them, none trims them.
        marks = [f"\ue000{index}\ue001" for index in range(len(roles))]
        turns = [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
        try:
            rendered: str = self._tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, tokenize=False
            )
        except TemplateError as refused:
            raise ValueError(
                f"The model's chat template refuses the roles {', '.join(roles)}: {refused}"
            ) from refused
        frame = []
        for mark in marks:
            around, found, rendered = rendered.partition(mark)
            if not found:
                raise ValueError(f"The model's chat template cannot hold the roles {roles}")
            frame.append(around)
        frame.append(rendered)
        if any("\ue000" in around for around in frame):
            raise ValueError(f"The model's chat template repeats the contents of {roles}")
        return tuple(
            tuple(self._template_backend.encode(around, add_special_tokens=False).ids)
            for around in frame
        )


class AnswerDecoder:
    """From an answer's tokens to its text, as they come; half a character waits for its rest.

    context: the prompt's last tokens, which tell some tokenizers whether a space stands between.
    The whole prompt would tell no more, and reading it takes 8 ms at 6,000 tokens.
    """

    def __init__(self, tokenizer: Tokenizer, context: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(ids=list(context), skip_special_tokens=True)

    def text(self, tokens: Iterable[int]) -> str:
        """Return what `tokens` add to the text."""
        return "".join(self._stream.step(self._tokenizer, token) or "" for token in tokens)


def _without_control_tokens(backend: Tokenizer) -> Tokenizer:
    """Return a copy of `backend` that reads every control token as plain characters.

    Tokens that are added but not marked as special (`<think>`, `<tool_call>`) control a model too,
    so all go but runs of white space, which some tokenizers keep there.
    """
    state = json.loads(backend.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"].isspace()]
    state["truncation"] = state["padding"] = None
    return Tokenizer.from_str(json.dumps(state))
