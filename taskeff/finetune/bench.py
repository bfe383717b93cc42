"""What the cells of a row share: one copy of the base weights, the prompts, the test rows."""

from __future__ import annotations

from accelerate import PartialState

from taskeff.config import RunConfig
from taskeff.finetune.checkpoints import Checkpoints, publish_weights
from taskeff.finetune.evaluate import Evaluation, evaluate
from taskeff.finetune.loop import FineTuner, Training
from taskeff.models import load_model, load_tokenizer
from taskeff.storage import Store
from taskeff.tasks.prompts import Prompter
from taskeff.tasks.task import Task


class Bench:
    """Trains and scores the cells of one (task, seed), zero-shot first.

    On one device adapters are attached only once training starts; workers that share a model
    share it from the beginning, also for the zero-shot score.
    """

    def __init__(self, task: Task, config: RunConfig, seed: int, workers: PartialState):
        self.task, self.config, self.seed, self.workers = task, config, seed, workers
        self._prompter = Prompter(load_tokenizer(config.model), task.spec.description)
        self._test = task.test_subset(config.evaluation.test_cap)
        strategy = config.training.strategy
        alone = workers.num_processes == 1 and strategy in ("auto", "single")
        self._model = load_model(config.model, str(workers.device) if alone else "cpu")
        self._tuner = None if alone else self._make_tuner()

    def measure(self, budget: int, folder: Store) -> tuple[Training | None, Evaluation]:
        """Train at `budget` (0: not at all) and score; `folder` is the cell's."""
        training = self._train(budget, folder) if budget else None
        scored = evaluate(
            self._tuner.model if self._tuner else self._model,
            self._prompter,
            self.task.spec,
            self._test,
            max_tokens=self.config.evaluation.max_tokens_per_pack,
            strategy=self._tuner.strategy if self._tuner else None,
        )
        if training and self._tuner and self.config.training.keep_checkpoints:
            publish_weights(self._tuner.strategy, folder)
        return training, scored

    def close(self) -> None:
        """Let go of what outlives the model."""
        if self._tuner:
            self._tuner.strategy.close()

    def _train(self, budget: int, folder: Store) -> Training:
        self._tuner = self._tuner or self._make_tuner()
        examples, validation = (
            [self._prompter.encode_example(e, end_of_turn=True) for e in rows]
            for rows in (
                self.task.subset(budget, self.seed),
                self.task.validation_subset(budget),
            )
        )
        minutes = self.config.training.checkpoint_minutes
        checkpoints = Checkpoints(folder, minutes, self.workers) if minutes else None
        return self._tuner.train(examples, validation, seed=self.seed, checkpoints=checkpoints)

    def _make_tuner(self) -> FineTuner:
        return FineTuner(self._model, self.config.training, seed=self.seed, workers=self.workers)
