"""Tiles of a Gram matrix over two actors, against the whole matrix in this process."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from taskeff.config import ScoringConfig
from taskeff.coslow.gradients import gradient_gram
from taskeff.coslow.linears import LoRA
from taskeff.distributed.session import ray_session
from taskeff.distributed.tiles import _Holder, _pairs, tiled_gram
from taskeff.models import load_model, load_tokenizer, model_config
from taskeff.tasks.prompts import Prompter
from taskeff.tasks.task import load_spec, load_task

SCORING = ScoringConfig(actors=(1, 2))
LORA = LoRA(4, 32, 0)


def examples_of(model, n):
    task = load_task(load_spec("name_gender"), 0)
    prompter = Prompter(load_tokenizer(model), task.spec.description)
    return [prompter.encode_example(one, end_of_turn=False) for one in task.train[:n]]


def distance(tiles, whole):
    """The largest difference, relative to the two examples' norms."""
    norms = np.sqrt(np.diag(whole))
    return float(np.abs((tiles - whole) / np.outer(norms, norms)).max())


@pytest.mark.parametrize("n", range(1, 8))
def test_every_pair_of_shares_is_one_actors(n):
    pairs = [tuple(sorted(pair)) for pair in _pairs(n)]
    assert sorted(pairs) == [(i, j) for i in range(n) for j in range(i, n)]


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("projection", [LORA, None])
def test_tiles_on_two_actors_are_the_whole_matrix(tiny_model, projection):
    model = model_config(str(tiny_model))
    examples = examples_of(model, 512 if projection else 96)
    whole = gradient_gram(load_model(model, "cpu"), examples, projection)
    with ray_session():
        tiles = tiled_gram(model, examples, projection, SCORING)
    assert distance(tiles.matrix, whole.matrix) <= 1e-7
    assert np.array_equal(tiles.losses, whole.losses)
    assert tiles.ids == whole.ids


class DiesOnce(_Holder):
    """Its actor is killed when it is first asked for products; `marker` is then there."""

    marker: Path

    def products(self, *arguments):
        try:
            self.marker.touch(exist_ok=False)
        except FileExistsError:
            return super().products(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.cluster
def test_an_actor_that_is_killed_starts_again(tiny_model, tmp_path, monkeypatch):
    model = model_config(str(tiny_model))
    examples = examples_of(model, 96)
    whole = gradient_gram(load_model(model, "cpu"), examples, LORA)
    # A class made here is pickled whole, its marker with it.
    dies = type("Dies", (DiesOnce,), {"marker": tmp_path / "killed"})
    monkeypatch.setattr("taskeff.distributed.tiles._Holder", dies)
    with ray_session():
        tiles = tiled_gram(model, examples, LORA, SCORING)
    assert (tmp_path / "killed").exists()
    assert distance(tiles.matrix, whole.matrix) <= 1e-7
