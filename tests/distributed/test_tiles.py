"""The Gram matrix over actors: the same as one process's, whatever happens to an actor."""

import os
import pickle
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import ray
from rich.console import Console

from taskeff.config import ScoringConfig
from taskeff.coslow.gradients import LoRA, Plan, gradient_gram
from taskeff.coslow.gram import Tiles
from taskeff.distributed import tiles
from taskeff.distributed.coslow import OnRay
from taskeff.distributed.session import ray_session
from taskeff.distributed.tiles import GramActors, deal, pairs_of
from taskeff.errors import ClusterError, DataError, ModelError
from taskeff.models import load_model, model_config
from taskeff.run.ranking import rank
from taskeff.tasks.prompts import TokenizedExample
from tests.distributed import candidates as made

CONSOLE = Console(quiet=True)
TWO = ScoringConfig(actors=(2, 2))


def examples_of(n, prefix=40, seed=0):
    rng = random.Random(seed)
    head = tuple(rng.randrange(5, 200) for _ in range(prefix))
    return [
        TokenizedExample(
            (*head, 5 + i % 190, *(rng.randrange(5, 200) for _ in range(rng.randrange(5, 60)))),
            tuple(rng.randrange(5, 200) for _ in range(rng.randrange(1, 4))),
            f"e{i}",
        )
        for i in range(n)
    ]


def over_actors(config, examples, projection, scoring=TWO, *, targets=None):
    with GramActors(config, scoring) as actors:
        return actors.gram(examples, projection, targets=targets)


def apart(one, other):
    """The largest difference relative to sqrt(kii kjj)."""
    norms = np.sqrt(np.diag(other.matrix))
    return np.abs((one.matrix - other.matrix) / np.outer(norms, norms)).max()


@pytest.fixture(scope="module")
def config(tiny_model):
    return model_config(str(tiny_model))


@pytest.fixture(scope="module")
def model(config):
    return load_model(config, "cpu")


@pytest.fixture(scope="module")
def single(model):
    """One process's matrix of 512 gradients."""
    return gradient_gram(model, examples_of(512))


@pytest.fixture
def session():
    with ray_session():
        yield


def test_every_pair_is_multiplied_once_and_the_work_is_even():
    for n in range(1, 10):
        pairs = list(pairs_of(n))
        assert {frozenset(pair) for pair in pairs} == {
            frozenset((i, j)) for i in range(n) for j in range(n)
        }
        assert len(pairs) == n * (n + 1) // 2
        each = [sum(first == i for first, _ in pairs) for i in range(n)]
        assert max(each) - min(each) <= 1


def test_micro_batches_are_dealt_by_their_size():
    sizes = [100, 990, 1000, 1010, 1020]
    hands = deal(sizes, 2)
    assert sorted(sum(hands, ())) == list(range(5))
    totals = [sum(sizes[i] for i in hand) for hand in hands]
    assert abs(totals[0] - totals[1]) <= 100
    assert deal([5, 5], 4) == [(0,), (1,)]
    assert deal(sizes, 2) == hands


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("projection", [LoRA(), None], ids=["projected", "true"])
def test_two_workers_without_ray_make_the_same_matrix(config, model, projection, groups):
    """What actors do, with pickles for an object store; one of them restarts in between."""
    plan = Plan.make(model.config, examples_of(48), projection, max_tokens=400)
    shares = deal([plan.rows(batch) for batch in range(len(plan.batches))], 2)
    workers = [tiles._Worker(config, TWO) for _ in shares]
    found, losses = Tiles(48), np.full(48, np.nan)
    for number in reversed(range(groups)):
        made = []
        for worker, share in zip(workers, shares, strict=True):
            mine, gradients = worker.gradients(plan, (0, share), groups, number)
            losses[plan.members(share)] = mine
            made.append(pickle.loads(pickle.dumps(gradients)))
        workers[1] = tiles._Worker(config, TWO)
        for i, j in pairs_of(2):
            products = workers[i].tile(made[i], made[j] if i != j else None)
            found.add(plan.members(shares[i]), plan.members(shares[j]), products)
    one = gradient_gram(model, plan.examples, projection, max_tokens=400, groups=groups)
    assert apart(plan.gram(found, losses), one) < 1e-7
    assert np.array_equal(losses, one.losses)


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(240)
class TestOnRay:
    def test_512_gradients_on_two_actors(self, config, single, session):
        with GramActors(config, TWO) as pool:
            for groups in (1, 2):
                found = pool.gram(examples_of(512), LoRA(), groups=groups)
                assert apart(found, single) < 1e-7
                assert np.array_equal(found.matrix, found.matrix.T)
                assert np.array_equal(found.losses, single.losses)
                assert found.ids == single.ids
            # Too little for all blocks at once: taken in groups.
            small = pool.gram(examples_of(512), LoRA(), memory=30_000_000)
            assert apart(small, single) < 1e-7

    def test_an_actor_killed_midway(self, config, single, session, tmp_path, monkeypatch):
        """It restarts, computes its part again, and the other waits for it."""
        flag = tmp_path / "killed"

        class DiesOnce(tiles._Worker):
            def gradients(self, plan, job, groups, number):
                if number == 0 and 1 in job[1] and not flag.exists():
                    flag.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().gradients(plan, job, groups, number)

        monkeypatch.setattr(tiles, "_Worker", DiesOnce)
        with GramActors(config, TWO) as pool:
            found = pool.gram(examples_of(512), LoRA(), groups=2)
        assert flag.exists()
        assert apart(found, single) < 1e-7
        assert np.array_equal(found.losses, single.losses)

    def test_an_actor_that_keeps_dying_is_an_error(self, config, session, monkeypatch):
        class Dies(tiles._Worker):
            def gradients(self, plan, job, groups, number):
                os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(tiles, "_Worker", Dies)
        monkeypatch.setattr(tiles, "RESTARTS", 1)
        with pytest.raises(ClusterError, match="died more than 1 times"):
            over_actors(config, examples_of(4), LoRA())

    def test_what_is_wrong_is_said_as_without_ray(self, config, session):
        with pytest.raises(DataError, match="token 100000 is outside"):
            over_actors(config, [TokenizedExample((1, 100_000), (1,))], LoRA())
        with pytest.raises(ModelError, match="no linear layer is called w_q"):
            over_actors(config, examples_of(4), LoRA(), targets=["w_q"])
        with pytest.raises(ClusterError, match=r"ask for 99 actors with .* CPUs each"):
            over_actors(config, examples_of(4), LoRA(), ScoringConfig(actors=(99, 99)))

    def test_inside_an_actor(self, config, session):
        """Not only a driver may ask; the caller's own memory holds no gradient."""

        @ray.remote(num_cpus=0)
        class Caller:
            def gram(self):
                return over_actors(config, examples_of(40), LoRA())

        found = ray.get(Caller.remote().gram.remote())
        assert apart(found, gradient_gram(load_model(config, "cpu"), examples_of(40))) < 1e-7

    def test_a_ranking_of_many_examples(self, tiny_model, session, tmp_path):
        """What `scoring.tile_examples` sends to tiles has the CoS-Low of one actor's matrix."""
        family = made.family(tiny_model, tmp_path)
        manifest = made.write_manifest(tmp_path, made.some(tmp_path)[:2])
        found = []
        for out, tile_examples in (("whole", 8), ("tiles", 7)):  # of eight
            config = made.rank_config(tiny_model, manifest, tmp_path / out, family)
            scoring = config.scoring.model_copy(update={"tile_examples": tile_examples})
            rows = rank(config.model_copy(update={"scoring": scoring}), OnRay(), CONSOLE)
            found.append({row["name"]: row["cos_low"] for row in rows})
        assert found[0].keys() == {"kinds", "feelings"}
        assert found[1] == pytest.approx(found[0], abs=1e-6)

    def test_the_terminal_stays_quiet(self, tiny_model, tmp_path):
        """An actor that dies and restarts says nothing in Ray's own words."""
        result = subprocess.run(
            [sys.executable, "-m", "tests.distributed.tiles_killed", str(tiny_model)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "KILLED": str(tmp_path / "killed")},
        )
        assert result.returncode == 0, result.stdout
        assert Path(tmp_path / "killed").exists()
        assert result.stdout.strip() == "(40, 40)"
