"""The tests' model: a Llama under 1 MB with its own tokenizer, trained here in under a minute.

It can follow an instruction a little - name a kind, judge a word, repeat the last of a few - so
that zero-shot scores are above zero, confidences vary and fine-tuning has something to improve.
`python -m tests.tiny_model` builds it below `.cache/` and prints the folder.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from filelock import FileLock
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SEED = 0
STEPS = 900
BATCH = 4
MOST_TURNS = 12
LEARNING_RATE = 2e-3
VOCABULARY = 1024
CONTEXT = 2048

BOS, EOS, PAD, TURN = "<|bos|>", "<|im_end|>", "<|pad|>", "<|im_start|>"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

KINDS = {
    "animal": "cat dog horse cow sheep goat lion tiger bear wolf fox mouse bird duck frog snake",
    "colour": "red green blue yellow black white brown pink purple orange grey gold violet cyan",
    "food": "bread rice soup cheese cake egg butter honey salad pasta apple banana pear plum",
    "tool": "hammer saw drill axe spade rake chisel wrench knife ladder needle broom shovel pliers",
    "body": "hand foot head arm leg nose ear eye mouth knee neck back finger toe",
    "clothes": "shirt coat hat shoe sock dress skirt glove scarf belt jacket boot sweater apron",
    "weather": "rain snow wind storm fog hail sun cloud frost thunder heat breeze mist drought",
    "building": "house church castle school tower barn hotel hospital palace prison cabin museum",
}
FEELINGS = {
    "positive": "good happy love great win joy kind nice best smile hope brave calm fun success "
    "beautiful friend gift peace warm",
    "negative": "bad sad hate awful lose pain cruel ugly worst cry fear angry war fail death "
    "horrible enemy poison sick cold",
}
MEMBERS = {label: words.split() for label, words in {**KINDS, **FEELINGS}.items()}
WORDS = sorted({word for words in MEMBERS.values() for word in words} | set(KINDS))
NUMERALS = {2: "two", 3: "three", 4: "four", 5: "five"}


class Row(NamedTuple):
    """One labelled example of a made-up task."""

    description: str
    text: str
    target: str


def instruction(subject: str, question: str, labels: Sequence[str]) -> str:
    """An instruction that lists its labels, worded as the bundled suite words its own."""
    count = NUMERALS[len(labels)]
    return (
        f"You will be given {subject}. {question} "
        f"Answer with exactly one of these {count} words: {', '.join(labels)}."
    )


def kind_of_word(rng: random.Random) -> Iterator[Row]:
    """A word and the kinds it may be of."""
    labels = rng.sample(sorted(KINDS), rng.randint(2, 5))
    description = instruction("one English word", "Decide what kind of thing it names.", labels)
    while True:
        answer = rng.choice(labels)
        yield Row(description, f"Word: {rng.choice(MEMBERS[answer])}", answer)


def feeling_of_word(rng: random.Random) -> Iterator[Row]:
    """A word that pleases or does not."""
    labels = rng.sample(sorted(FEELINGS), 2)
    description = instruction("one English word", "Decide which feeling it carries.", labels)
    while True:
        answer = rng.choice(labels)
        yield Row(description, f"Word: {rng.choice(MEMBERS[answer])}", answer)


def truth_of_expression(rng: random.Random) -> Iterator[Row]:
    """A constant behind up to two negations."""
    labels = rng.sample(["True", "False"], 2)
    description = instruction("a Boolean expression", "Work out its value.", labels)
    while True:
        value, negations = rng.random() < 0.5, rng.randint(0, 2)
        answer = value if negations % 2 == 0 else not value
        yield Row(description, "Expression: " + "not " * negations + str(value), str(answer))


def last_word(rng: random.Random) -> Iterator[Row]:
    """Free text rather than a label: the last word of a few."""
    while True:
        words = rng.sample(WORDS, rng.randint(1, 4))
        yield Row("You will be given some words. Repeat the last one.", " ".join(words), words[-1])


FAMILIES: tuple[Callable[[random.Random], Iterator[Row]], ...] = (
    kind_of_word,
    feeling_of_word,
    truth_of_expression,
    last_word,
)


def conversations(seed: int) -> Iterator[list[Row]]:
    """Some rows of one task after another, without end: many answers for one instruction read."""
    rng = random.Random(seed)
    while True:
        yield list(islice(rng.choice(FAMILIES)(rng), rng.randint(1, MOST_TURNS)))


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level pairs learned from the mixture; it puts a BOS of its own before plain text."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    core.decoder = decoders.ByteLevel()
    special = [PAD, BOS, EOS, TURN]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # The template's words become single tokens too.
    texts = ["system\nuser\nassistant\n"] * 1000
    for turns in islice(conversations(SEED), 1000):
        texts += ["\n".join(row) for row in turns]
    core.train_from_iterator(texts, trainer)
    core.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, special.index(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=[TURN],
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Untrained weights from the seed."""
    torch.manual_seed(SEED)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=80,
            intermediate_size=208,
            num_hidden_layers=2,
            num_attention_heads=5,
            num_key_value_heads=5,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            initializer_range=0.05,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def encode(
    tokenizer: PreTrainedTokenizerFast, turns: Sequence[Row]
) -> tuple[list[int], list[bool]]:
    """Token ids of one conversation, and which of them bear a loss: the answers and their EOS."""

    def ids_of(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    system = [{"role": "system", "content": turns[0].description}]
    ids = ids_of(tokenizer.apply_chat_template(system, tokenize=False))
    bears_loss = [False] * len(ids)
    for turn in turns:
        question = ids_of(f"{TURN}user\n{turn.text}{EOS}\n{TURN}assistant\n")
        answer = ids_of(turn.target + EOS)
        after = ids_of("\n")
        ids += question + answer + after
        bears_loss += [False] * len(question) + [True] * len(answer) + [False] * len(after)
    return ids, bears_loss


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    source: Iterator[Sequence[Row]],
    *,
    steps: int,
    learning_rate: float,
    batch: int = BATCH,
) -> list[float]:
    """Train `model` in place on answers only, rows padded on the right; the loss of every step."""
    optimiser = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, steps, pct_start=0.1)
    losses = []
    model.train()
    for _ in range(steps):
        examples = [encode(tokenizer, next(source)) for _ in range(batch)]
        longest = max(len(ids) for ids, _ in examples)
        inputs = torch.full((batch, longest), tokenizer.pad_token_id)
        labels = torch.full((batch, longest), -100)
        for i, (ids, bears_loss) in enumerate(examples):
            inputs[i, : len(ids)] = torch.tensor(ids)
            labels[i, : len(ids)] = torch.where(
                torch.tensor(bears_loss), inputs[i, : len(ids)], -100
            )
        # Padding lies after every real token, so the causal mask alone hides it.
        hidden = model.model(inputs, use_cache=False).last_hidden_state
        kept = labels[:, 1:] != -100
        loss = cross_entropy(model.lm_head(hidden[:, :-1][kept]), labels[:, 1:][kept])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    model.eval()
    return losses


def build(folder: Path, steps: int = STEPS) -> Path:
    """Train the model and write it, with its tokenizer, to `folder` as Hugging Face files."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one fixed order: the same weights every time
    try:
        tokenizer = make_tokenizer()
        model = make_model(tokenizer)
        train(model, tokenizer, conversations(SEED + 1), steps=steps, learning_rate=LEARNING_RATE)
    finally:
        torch.set_num_threads(threads)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def cached(root: Path | None = None) -> Path:
    """The built model below `root` (the repository's `.cache/`), built first where it is absent."""
    script = Path(__file__)
    root = root or script.parents[1] / ".cache"
    folder = root / f"tiny-model-{hashlib.sha256(script.read_bytes()).hexdigest()[:12]}"
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            draft = Path(tempfile.mkdtemp(dir=root, prefix=".tiny-model-"))
            try:
                build(draft).rename(folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    return folder


if __name__ == "__main__":
    print(cached())
