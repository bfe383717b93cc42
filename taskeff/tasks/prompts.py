"""Chat template -> token ids and answer span. The only place that knows templates."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from taskeff.errors import DataError, ModelError, cell, first_line
from taskeff.storage import digest
from taskeff.tasks.chat import render_chat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

    from taskeff.tasks.task import Example


@dataclass(frozen=True)
class TokenizedExample:
    """One example as the model sees it; `answer_ids` are the only tokens that bear a loss.

    Attributes:
        escaped: its text or answer held the model's own markers.
    """

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    id: str = ""
    escaped: bool = False


# Broken by a zero-width space, a marker is text like any other and closes no turn.
_BREAK = "\u200b"
_BRACKETED = re.compile(r"<<?/?\|?[\w.:-]+\|?>>?|\[/?[A-Z_]+\]|<\|?[\w.:-]+")


def template_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """A digest of the chat template's text; `"plain"` where there is none."""
    template = getattr(tokenizer, "chat_template", None)
    return digest(template) if template else "plain"


class Prompter:
    """Renders examples of one task with one tokenizer's own chat template.

    A template without a system role, or one that drops it once there is an answer, gets the
    instruction folded into the user turn; a tokenizer without a template gets
    `instruction\\n\\ntext\\nAnswer:` as plain text. Templates that know `enable_thinking` have it
    off, and the date is pinned for those that print it. Where a text holds the model's own markers
    they are encoded as text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, description: str):
        self.tokenizer = tokenizer
        self.description = description
        self._has_template = bool(getattr(tokenizer, "chat_template", None))
        self._system_role = self._has_template and self._accepts_system_role()

    @cached_property
    def overhead(self) -> int:
        """Tokens of a prompt and an answer's end that are neither text nor answer."""
        return len(self.prompt_ids("x")) + 1

    def marked(self, example: TokenizedExample) -> tuple[str, str]:
        """Prompt and answer as the model reads them, special tokens included.

        The answer is what bears the loss.
        """
        prompt, answer = (
            str(self.tokenizer.decode(list(ids), skip_special_tokens=False))
            for ids in (example.prompt_ids, example.answer_ids)
        )
        return prompt, answer

    def prompt_ids(self, text: str) -> tuple[int, ...]:
        """Token ids of everything before the answer.

        Raises:
            TaskeffError: the chat template or the tokenizer fails on it.
        """
        return self._tokenize(self._render(self._as_text(text), None))

    def escapes(self, *texts: str) -> bool:
        """Whether one of the texts holds markers that would end a turn."""
        return any(self._as_text(text) != text for text in texts)

    def encode(
        self, text: str, target: str, *, end_of_turn: bool, example_id: str = ""
    ) -> TokenizedExample:
        """Prompt and answer ids, the span found by rendering with and without the answer.

        Args:
            end_of_turn: append the template's first end-of-turn token to the answer (training
                needs it to learn to stop; gradients leave it out: it is the same for every row).

        Raises:
            DataError: the answer is empty, or prompt and answer merge into one token.
        """
        given = text, target.strip()
        text, target = map(self._as_text, given)
        if not target:
            raise DataError(f"example {example_id!r}: the answer is empty; give every row a label")
        prompt, answer, tail = self._spans(text, target)
        prompt_ids = self._tokenize(prompt)
        both = self._tokenize(prompt + answer)
        if both[: len(prompt_ids)] != prompt_ids:
            raise DataError(
                f"example {example_id!r}: prompt and answer merge at their boundary when "
                "tokenised; "
                + (
                    "take away the blank that the prompt ends in"
                    if prompt[-1:].isspace()
                    else "make the target start with a character that cannot join the prompt"
                )
            )
        answer_ids = both[len(prompt_ids) :]
        if not answer_ids:
            raise DataError(f"example {example_id!r}: the answer {cell(target)} has no tokens")
        if end_of_turn:
            answer_ids += self._end_of_turn(tail)
        return TokenizedExample(prompt_ids, answer_ids, example_id, (text, target) != given)

    def encode_example(self, example: Example, *, end_of_turn: bool) -> TokenizedExample:
        """`encode` for a labelled example of a task.

        Raises:
            DataError: the example has no label.
        """
        if example.target is None:
            raise DataError(f"example {example.id!r} has no label")
        return self.encode(
            example.text, example.target, end_of_turn=end_of_turn, example_id=example.id
        )

    def stop_ids(self) -> tuple[int, ...]:
        """Token ids that end an answer: the tokenizer's EOS and the template's end of turn."""
        _, _, tail = self._spans("x", "y")
        return tuple(dict.fromkeys(self._eos() + self._end_of_turn(tail)))

    def choice_ids(self, choices: Sequence[str], text: str = "x") -> list[tuple[int, ...]]:
        """The answer tokens of each allowed answer."""
        return [self.encode(text, choice, end_of_turn=False).answer_ids for choice in choices]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of generated tokens, special tokens left out."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    @cached_property
    def _markers(self) -> re.Pattern[str] | None:
        """The special tokens, and what the chat template writes in brackets around a text."""
        added = self.tokenizer.added_tokens_decoder.values()
        found = {str(token) for token in added if token.special} | set(
            map(str, self.tokenizer.all_special_tokens)
        )
        if self._has_template:
            frame = "".join(self._spans("x", "y")) + self._render("x", None)
            found |= set(_BRACKETED.findall(frame.replace(self.description.strip(), "")))
            found |= {str(t) for t in added if str(t).strip() and str(t) in frame}
        kept = sorted((m for m in found if len(m.strip()) > 1), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, kept))) if kept else None

    def _as_text(self, text: str) -> str:
        if self._markers is None:
            return text
        return self._markers.sub(lambda found: found[0][0] + _BREAK + found[0][1:], text)

    def _spans(self, text: str, target: str) -> tuple[str, str, str]:
        """Prompt, answer (with what the template puts before it) and what follows, as text."""
        prompt, full = self._render(text, None), self._render(text, target)
        if not full.startswith(prompt):
            raise ModelError(
                "the chat template renders a prompt that is no prefix of prompt + answer; "
                "use a template whose generation prompt matches its assistant turn"
            )
        rest = full[len(prompt) :]
        before, found, tail = rest.partition(target)
        if not found:
            raise ModelError(
                "the chat template does not write the answer as it is given; "
                "use a template that leaves the assistant's words alone"
            )
        return prompt, before + target, tail

    def _end_of_turn(self, tail: str) -> tuple[int, ...]:
        # Not every tokenizer names its end of turn among its special tokens (Gemma's do not).
        added = self.tokenizer.added_tokens_decoder
        ids = self._ids(tail, special=False)
        return next(((int(token),) for token in ids if token in added), self._eos())

    def _eos(self) -> tuple[int, ...]:
        eos: Any = self.tokenizer.eos_token_id
        return () if eos is None else (int(eos),)

    def _render(self, text: str, target: str | None) -> str:
        if not self._has_template:
            head = f"{self.description}\n\n" if self.description else ""
            return f"{head}{text}\nAnswer:" + ("" if target is None else f" {target}")
        return self._apply_template(text, target, system_role=self._system_role)

    def _apply_template(self, text: str, target: str | None, *, system_role: bool) -> str:
        messages = [{"role": "user", "content": text}]
        if self.description and system_role:
            messages.insert(0, {"role": "system", "content": self.description})
        elif self.description:
            messages[0]["content"] = f"{self.description}\n\n{text}"
        if target is not None:
            messages.append({"role": "assistant", "content": target})
        with _failing("chat template", "mend chat_template in the model's folder"):
            return render_chat(
                str(self.tokenizer.get_chat_template()),
                messages,
                add_generation_prompt=target is None,
                special_tokens=self.tokenizer.special_tokens_map,
            )

    def _accepts_system_role(self) -> bool:
        try:
            prompt = self._apply_template("x", None, system_role=True)
            full = self._apply_template("x", "y", system_role=True)
        except ModelError:
            return False
        # Mistral's template writes the instruction into the last turn, if the user has that.
        return self.description.strip() in prompt and full.startswith(prompt)

    def _ids(self, text: str, *, special: bool) -> Any:
        with _failing("tokenizer", "mend the text"):
            return self.tokenizer(text, add_special_tokens=special)["input_ids"]

    def _tokenize(self, text: str) -> tuple[int, ...]:
        # A template writes its own BOS; plain text needs the tokenizer's.
        ids = self._ids(text, special=not self._has_template)
        eos = self.tokenizer.eos_token_id
        if not self._has_template and ids and ids[-1] == eos:
            ids = ids[:-1]
        bos = self.tokenizer.bos_token_id
        if bos is not None and len(ids) > 1 and ids[0] == ids[1] == bos:
            raise ModelError("the rendered prompt starts with two BOS tokens; mend the template")
        return tuple(int(token) for token in ids)


class RenderedPrompter(Prompter):
    """Prompts that a template has rendered already, like `input_text` of the published pools.

    Text that begins with the tokenizer's BOS gets no second one; the answer follows the text as it
    is.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        super().__init__(tokenizer, "")

    def stop_ids(self) -> tuple[int, ...]:
        """Token ids that end an answer: the tokenizer's EOS and its template's end of turn."""
        return Prompter(self.tokenizer, "").stop_ids()

    def _as_text(self, text: str) -> str:
        return text  # a prompt, its markers and all

    def _render(self, text: str, target: str | None) -> str:
        return text + (target or "")

    def _tokenize(self, text: str) -> tuple[int, ...]:
        bos = self.tokenizer.bos_token
        rendered = bool(bos) and text.startswith(str(bos))
        ids = self._ids(text, special=not rendered)
        if not rendered and ids and ids[-1] == self.tokenizer.eos_token_id:
            ids = ids[:-1]
        return tuple(int(token) for token in ids)


@contextmanager
def _failing(what: str, fix: str) -> Iterator[None]:
    """Whatever a model's template or tokenizer raises inside, as one line."""
    try:
        yield
    except BaseException as error:  # a panic of Rust code is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise ModelError(
            f"the model's {what} fails: {first_line(error)}; {fix} or name another model"
        ) from error
