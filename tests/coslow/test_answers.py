"""Rows x answers in tokens, and their Gram matrix against autograd of summed log-likelihoods."""

from itertools import product

import numpy as np
import pytest
import torch

from taskeff.coslow.gradients import LoRA, gradient_gram
from taskeff.coslow.kernel import answer_kernel, kernel_pilot
from taskeff.coslow.pilot import answer_rows, summed
from taskeff.errors import DataError
from taskeff.models import load_model, load_tokenizer, model_config
from taskeff.tasks.prompts import Prompter, TokenizedExample
from taskeff.tasks.task import Example
from tests.coslow.reference import build, examples_of, plain_gradients

SMALL = LoRA(rank=8, alpha=8, seed=3)
ANSWERS = ((5,), (9, 4), (7, 7, 2))


def tokens(n=8):
    """n prompts that begin alike, each with three answers of 1 to 3 tokens."""
    return [
        TokenizedExample(row.prompt_ids, answer, f"{row.id}: {k}")
        for row in examples_of(n, 40, seed=2)
        for k, answer in enumerate(ANSWERS)
    ]


def lengths(examples):
    return np.array([len(example.answer_ids) for example in examples], dtype=float)


def relative(matrix, expected):
    """The largest difference, as a share of the two gradients' norms."""
    norms = np.sqrt(np.diag(expected))
    return np.abs((matrix - expected) / np.outer(norms, norms)).max()


@pytest.mark.parametrize("name", ["llama", "gemma2", "neox", "gpt2"])
def test_the_matrix_of_row_and_answer_equals_autograd(name):
    """Of log p summed over the answer, whatever the batches, their order and the memory."""
    model, examples = build(name), tokens()
    gradients = plain_gradients(model, examples, SMALL, reduction="sum")
    expected = gradients @ gradients.T
    own = np.arange(8) % 3
    scores = answer_kernel(expected, own).left_out_scores()
    shuffled = np.random.default_rng(0).permutation(len(examples))
    for max_tokens, memory in product((2048, 150), (None, 1)):
        for order in (np.arange(len(examples)), shuffled):
            given = [examples[i] for i in order]
            gram = gradient_gram(model, given, SMALL, max_tokens=max_tokens, memory=memory)
            matrix, likelihoods = summed(gram, lengths(given))
            back = np.argsort(order)
            matrix, likelihoods = matrix[np.ix_(back, back)], likelihoods[back]
            assert relative(matrix, expected) <= 1e-5
            np.testing.assert_allclose(
                answer_kernel(matrix, own).left_out_scores(), scores, atol=1e-4
            )
            np.testing.assert_allclose(likelihoods, log_p(model, examples), rtol=1e-4)


def log_p(model, examples):
    found = []
    for example in examples:
        ids = torch.tensor([example.prompt_ids + example.answer_ids])
        with torch.no_grad():
            logits = model(ids).logits[0, len(example.prompt_ids) - 1 : -1].log_softmax(-1)
        found.append(float(logits[range(len(example.answer_ids)), list(example.answer_ids)].sum()))
    return found


@pytest.fixture(scope="module")
def prompter(tiny_model):
    tokenizer = load_tokenizer(model_config(str(tiny_model)))
    return Prompter(tokenizer, "Say which it is: red, green or blue.")


ROWS = [Example(f"r{i}", f"thing {i}", ("red", "green", "blue")[i % 3]) for i in range(9)]


def test_a_rows_answers_share_its_prompt_and_its_label_is_cos_lows(prompter):
    rows = answer_rows(prompter, ROWS, ["red", "green", "blue"])
    assert len(rows.examples) == 27
    for i, row in enumerate(ROWS):
        mine = rows.examples[3 * i : 3 * i + 3]
        assert {one.prompt_ids for one in mine} == {prompter.prompt_ids(row.text)}
        as_signal = prompter.encode_example(row, end_of_turn=False)
        assert mine[i % 3].answer_ids == as_signal.answer_ids
    assert rows.labels[:3] == ("red", "green", "blue")
    assert rows.lengths.tolist() == [len(one.answer_ids) for one in rows.examples]


def test_answers_that_tell_nothing_apart_are_one_line(prompter):
    def refused(match, answers, rows=ROWS):
        with pytest.raises(DataError, match=match) as caught:
            answer_rows(prompter, rows, answers)
        assert "\n" not in str(caught.value)

    refused("this task lists none", None)
    refused("this task lists none", ["red"])
    refused(
        "row r0: the answers 'red' and 'red ' are the same tokens", ["red", "green", "blue", "red "]
    )
    refused("the answer is empty", ["red", "green", "blue", " "])


def test_a_pilot_on_a_real_task(tiny_model, prompter):
    from taskeff.tasks.task import load_spec, load_task

    task = load_task(load_spec("name_gender"), 0)
    model = load_model(model_config(str(tiny_model), "float32"))
    asked = Prompter(prompter.tokenizer, task.spec.description)
    rows = answer_rows(asked, task.train[:16], task.spec.doc_to_choice)
    gram = gradient_gram(model, rows.examples, SMALL)
    matrix, likelihoods = summed(gram, rows.lengths)
    np.testing.assert_allclose(likelihoods, log_p(model, rows.examples), rtol=1e-4)
    found = kernel_pilot(matrix, rows.labels, rows.answers, ids=rows.ids)
    assert 0 <= found.accuracy <= 1
    assert [point.n for point in found.curve] == [4, 8, 15]
