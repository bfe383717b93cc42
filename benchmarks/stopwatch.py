"""CPU, wall and CUDA time, load average and peak memory for the benchmarks."""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections.abc import Callable

import torch

from taskeff.memory import return_memory


class Stopwatch:
    """Seconds of every `with` block: CPU time of this process, or time between CUDA events."""

    def __init__(self, device: str):
        self.cuda = device.startswith("cuda")
        self.clock = "CUDA" if self.cuda else "CPU"
        self.seconds: list[float] = []
        self.wall: list[float] = []

    def __enter__(self) -> None:
        # What the heap holds is the variant's before: each touches its own memory first.
        return_memory()
        if self.cuda:
            torch.cuda.synchronize()
            self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            self._events[0].record()
        self._before = time.process_time(), time.perf_counter()

    def __exit__(self, *failure: object) -> None:
        if self.cuda:
            self._events[1].record()
            torch.cuda.synchronize()
            self.seconds.append(self._events[0].elapsed_time(self._events[1]) / 1e3)
        else:
            self.seconds.append(time.process_time() - self._before[0])
        self.wall.append(time.perf_counter() - self._before[1])

    @property
    def best(self) -> float:
        """The least seconds; what ratios are made of."""
        return min(self.seconds)

    def columns(self) -> str:
        """Least and median seconds, then the same by the wall clock, as cells of a table."""
        times = (self.best, statistics.median(self.seconds))
        walls = (min(self.wall), statistics.median(self.wall))
        return " | ".join(f"{value:.2f}" for value in (*times, *walls))


def load() -> str:
    """The machine's load average now, and the threads torch computes with."""
    return f"load average {os.getloadavg()[0]:.2f}, {torch.get_num_threads()} threads"


def peak_above(work: Callable[[], object], device: str) -> float:
    """Megabytes by which memory peaks in `work` above what is held before it."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with open("/proc/self/statm") as file:
        before = int(file.read().split()[1]) * resource.getpagesize() / 1e6
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # forget the peak so far, which loading the model may have set
    work()
    with open("/proc/self/status") as file:
        high = next(line for line in file if line.startswith("VmHWM"))
    return int(high.split()[1]) * 1024 / 1e6 - before
