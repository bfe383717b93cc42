"""Several families one after the other, and the page that compares them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console

from taskeff.config import RunConfig
from taskeff.errors import ConfigError, TaskeffError, together
from taskeff.estimate.calibration import Calibration
from taskeff.report.families import write_comparison
from taskeff.run.checks import check_fittable
from taskeff.run.driver import measure_family
from taskeff.run.executor import Executor
from taskeff.run.plan import Plan, make_plan
from taskeff.run.progress import say
from taskeff.screen import Screen
from taskeff.storage import Store


def calibrate_families(
    configs: Sequence[RunConfig],
    executor: Callable[[RunConfig], Executor],
    console: Console | None = None,
) -> list[Calibration]:
    """`calibrate` for each; a family that fails leaves the others alone.

    What can be checked beforehand is checked of all before the first is measured. The comparison
    is `families.html` in the storage of the first.

    Raises:
        TaskeffError: two runs have one name, something is wrong with one of them, or some
            failed; what was measured is kept, and the others are compared.
    """
    console = console or Screen()
    names = [config.name for config in configs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"name: {twice[0]!r} is that of two runs; give each its own")
    wrong: list[TaskeffError] = []
    plans: list[Plan] = []
    for config in configs:
        try:
            check_fittable(config)
            plans.append(make_plan(config))
            executor(plans[-1].config)
        except TaskeffError as error:
            wrong.append(type(error)(f"{config.name}: {error}"))
    if wrong:
        raise together(wrong)
    found: dict[str, Calibration] = {}
    for number, (config, plan) in enumerate(zip(configs, plans, strict=True), 1):
        say(console, f"family {number} of {len(configs)}:", config.name, "bold")
        try:
            calibration = measure_family(plan, config, executor, console)
        except TaskeffError as error:
            say(console, f"{config.name} failed:", str(error), "red")
            wrong.append(type(error)(f"{config.name}: {error}"))
        else:
            if calibration is not None:
                found[config.name] = calibration
    if found:
        page = write_comparison(Store(configs[0].storage), found)
        console.print(f"comparison: {page}", soft_wrap=True)
    if wrong:
        raise together(wrong)
    return list(found.values())
