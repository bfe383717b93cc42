"""The peak of a worker's memory at every stage of a run, from its configuration alone.

    python benchmarks/memory.py configs/llama-3.1-8b-instruct.yaml [--json] [key.sub=value ...]
    python benchmarks/memory.py --table

What `taskeff plan`, `validate` and placement go by (`taskeff/run/memory_account.py`): nothing is
allocated. --table: the published families, as published and with float32 masters, on 2, 4 and 8
GPUs of 80 GB; their shapes are those in `benchmarks/shapes`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from taskeff.config import RunConfig
from taskeff.config_file import load_config
from taskeff.models import load_architecture
from taskeff.run.memory_account import MemoryAccount, memory_account

ROOT = Path(__file__).resolve().parents[1]
FAMILIES = ("llama-3.1-8b-instruct", "mistral-7b-instruct-v0.3", "qwen2.5-14b-instruct")
WORKERS = (2, 4, 8)
GIB = 2**30
STAGES = ("training", "evaluation", "confidence", "gradients")


def published(family: str, *overrides: str) -> RunConfig:
    """A published configuration with its model's shape from this folder."""
    shape = ROOT / "benchmarks" / "shapes" / family
    return load_config(ROOT / f"configs/{family}.yaml", [f"model.path={shape}", *overrides])


def account_of(config: RunConfig) -> MemoryAccount:
    """The account of a configuration."""
    return memory_account(config, load_architecture(config.model))


def as_json(config: RunConfig, found: MemoryAccount) -> dict:
    """GiB by stage, what holds them, and the host's."""
    return {
        "model": config.model.name,
        "workers": config.cluster.workers_per_job,
        "gpus_per_worker": config.cluster.gpus_per_worker,
        "passes_counted": found.complete,
        "peak_gib": {
            **{stage: round(peak.total / GIB, 2) for stage, peak in found.device.items()},
            "host": round(found.host.total / GIB, 2),
        },
        "parts_gib": {
            stage: {name: round(size / GIB, 2) for name, size in peak.parts.items()}
            for stage, peak in (*found.device.items(), ("host", found.host))
        },
    }


def lines(config: RunConfig, found: MemoryAccount) -> list[str]:
    """A stage a line."""
    where = "GPU" if config.cluster.gpus_per_worker else "machine's memory"
    out = [f"{config.model.name}, {config.cluster.workers_per_job} worker(s), GiB a worker"]
    for stage, parts in as_json(config, found)["parts_gib"].items():
        held = ", ".join(f"{name} {size:.1f}" for name, size in parts.items())
        place = "host" if stage == "host" else where
        out.append(f"  {stage:<11} {sum(parts.values()):6.1f}  on the {place}: {held}")
    if not found.complete:
        out.append("  passes are not counted: this architecture does not run on fake tensors")
    return out


def table(families: Sequence[str] = FAMILIES, numbers: Sequence[int] = WORKERS) -> list[str]:
    """The published families' peaks in GiB on so many GPUs, as a table in Markdown."""
    head = ("family", "masters", "GPUs", *STAGES, "host", "of 80 GB")
    rows = [" | ".join(head), "|".join("---" for _ in head)]
    for family in families:
        for masters in ("none", "float32"):
            for workers in numbers:
                config = published(
                    family, f"training.masters={masters}", f"cluster.workers_per_job={workers}"
                )
                found = account_of(config)
                peaks = as_json(config, found)["peak_gib"].values()
                share = max(peak.total for peak in found.device.values()) / 80e9
                own = workers == published(family).cluster.workers_per_job
                count = f"**{workers}**" if own else str(workers)
                fits = f"{share:.0%}" if share <= 1 else f"{share:.0%}: does not fit"
                sizes = [f"{peak:.1f}" for peak in peaks]
                rows.append(" | ".join((family, masters, count, *sizes, fits)))
    return [f"| {row} |" if "---" not in row else f"|{row}|" for row in rows]


def main() -> None:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", nargs="?", help="a run's YAML file")
    parser.add_argument("overrides", nargs="*", help="key.sub=value")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--table", action="store_true", help="the published families")
    given = parser.parse_args()
    if given.table:
        print("\n".join(table()))
        return
    if given.config is None:
        parser.error("give a configuration, or --table")
    config = load_config(Path(given.config), given.overrides)
    found = account_of(config)
    if given.json:
        json.dump(as_json(config, found), sys.stdout, indent=1)
        print()
    else:
        print("\n".join(lines(config, found)))


if __name__ == "__main__":
    main()
