"""Chat template -> token ids and answer span. The only place that knows templates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from taskeff.errors import DataError, ModelError
from taskeff.store import digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

    from taskeff.tasks.task import Example


@dataclass(frozen=True)
class TokenizedExample:
    """One example as the model sees it; `answer_ids` are the only tokens that bear a loss."""

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    id: str = ""


def template_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """A digest of the chat template's text; `"plain"` where there is none."""
    template = getattr(tokenizer, "chat_template", None)
    return digest(template) if template else "plain"


class Prompter:
    """Renders examples of one task with one tokenizer's own chat template.

    A template without a system role gets the instruction folded into the user turn; a tokenizer
    without a template gets `instruction\\n\\ntext\\nAnswer:` as plain text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, description: str):
        self.tokenizer = tokenizer
        self.description = description
        self._has_template = bool(getattr(tokenizer, "chat_template", None))
        self._system_role = self._has_template and self._accepts_system_role()

    @property
    def template_hash(self) -> str:
        """A digest of the chat template's text; `"plain"` where there is none."""
        return digest(self.tokenizer.chat_template) if self._has_template else "plain"

    def prompt_ids(self, text: str) -> tuple[int, ...]:
        """Token ids of everything before the answer."""
        return self._tokenize(self._render(text, None))

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
        if not target.strip():
            raise DataError(f"example {example_id!r}: the answer is empty; give every row a label")
        prompt = self._render(text, None)
        full = self._render(text, target)
        if not full.startswith(prompt):
            raise ModelError(
                "the chat template renders a prompt that is no prefix of prompt + answer; "
                "use a template whose generation prompt matches its assistant turn"
            )
        prompt_ids = self._tokenize(prompt)
        rest = full[len(prompt) :]
        answer = rest[: rest.index(target) + len(target)] if target in rest else target
        both = self._tokenize(prompt + answer)
        if both[: len(prompt_ids)] != prompt_ids:
            raise DataError(
                f"example {example_id!r}: prompt and answer merge at their boundary when "
                "tokenised; make the target start with a character that cannot join the prompt"
            )
        answer_ids = both[len(prompt_ids) :]
        if not answer_ids:
            raise DataError(f"example {example_id!r}: the answer {target!r} has no tokens")
        if end_of_turn:
            answer_ids += self._end_of_turn(prompt + answer, full)
        return TokenizedExample(prompt_ids, answer_ids, example_id)

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
        ids = list(self._eos())
        rendered = self._render("x", "y")
        ids += self._end_of_turn(rendered[: rendered.rindex("y") + 1], rendered)
        return tuple(dict.fromkeys(ids))

    def choice_ids(self, choices: Sequence[str], text: str = "x") -> list[tuple[int, ...]]:
        """The answer tokens of each allowed answer."""
        return [self.encode(text, choice, end_of_turn=False).answer_ids for choice in choices]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of generated tokens, special tokens left out."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def _end_of_turn(self, answered: str, full: str) -> tuple[int, ...]:
        tail = self._tokenize(full)[len(self._tokenize(answered)) :]
        special = set(self.tokenizer.all_special_ids)
        for token in tail:
            if token in special:
                return (int(token),)
        return self._eos()

    def _eos(self) -> tuple[int, ...]:
        eos: Any = self.tokenizer.eos_token_id
        return () if eos is None else (int(eos),)

    def _render(self, text: str, target: str | None) -> str:
        if not self._has_template:
            head = f"{self.description}\n\n" if self.description else ""
            return f"{head}{text}\nAnswer:" + ("" if target is None else f" {target}")
        if self._system_role or not self.description:
            messages = [{"role": "user", "content": text}]
            if self.description:
                messages.insert(0, {"role": "system", "content": self.description})
        else:
            messages = [{"role": "user", "content": f"{self.description}\n\n{text}"}]
        if target is not None:
            messages.append({"role": "assistant", "content": target})
        rendered = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=target is None
        )
        return str(rendered)

    def _accepts_system_role(self) -> bool:
        import jinja2

        probe = [
            {"role": "system", "content": "SYSTEM-PROBE"},
            {"role": "user", "content": "x"},
        ]
        try:
            rendered = self.tokenizer.apply_chat_template(
                probe, tokenize=False, add_generation_prompt=True
            )
        except (jinja2.TemplateError, ValueError):
            return False
        return "SYSTEM-PROBE" in rendered

    def _tokenize(self, text: str) -> tuple[int, ...]:
        # A template writes its own BOS; plain text needs the tokenizer's.
        ids = self.tokenizer(text, add_special_tokens=not self._has_template)["input_ids"]
        eos = self.tokenizer.eos_token_id
        if not self._has_template and ids and ids[-1] == eos:
            ids = ids[:-1]
        bos = self.tokenizer.bos_token_id
        if bos is not None and len(ids) > 1 and ids[0] == ids[1] == bos:
            raise ModelError("the rendered prompt starts with two BOS tokens; mend the template")
        return tuple(int(token) for token in ids)
