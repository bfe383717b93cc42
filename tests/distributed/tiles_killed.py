"""A Gram matrix over actors, one of which is killed once, as a program of its own."""

import os
import signal
import sys
from pathlib import Path

from taskeff.coslow.linears import LoRA
from taskeff.distributed import tiles
from taskeff.distributed.session import ray_session
from taskeff.models import model_config
from tests.distributed.test_tiles import examples_of, over_actors


class DiesOnce(tiles._Worker):
    """Killed on its way, the first time."""

    def gradients(self, plan, job, groups, number):
        """As its parent's, but for the kill."""
        if not Path(os.environ["KILLED"]).exists():
            Path(os.environ["KILLED"]).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().gradients(plan, job, groups, number)


if __name__ == "__main__":
    tiles._Worker = DiesOnce
    with ray_session():
        gram = over_actors(model_config(sys.argv[1]), examples_of(40), LoRA())
    print(gram.matrix.shape)
