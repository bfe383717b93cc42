"""Drivers as processes of their own, to be watched and broken."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil


def kept(before: dict[str, int], after: dict[str, int]) -> bool:
    """Whether every result of `before` is still there, untouched."""
    return {path: after.get(path) for path in before} == before


def start(config: Path, *options: str, **environment: str) -> subprocess.Popen:
    """`taskeff calibrate` on a configuration file, as from a terminal: Ctrl-C reaches it."""
    command = [sys.executable, "-u", "-m", "taskeff.cli", "calibrate", "-c", str(config), *options]
    # A shell's background job ignores SIGINT, and what it starts inherits that.
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **environment},
        )
    finally:
        signal.signal(signal.SIGINT, ours)


def read_until(driver: subprocess.Popen, needle: str) -> str:
    """Follow the driver's output up to a line with `needle`; that line."""
    lines = []
    assert driver.stdout
    for line in driver.stdout:
        lines.append(line)
        if needle in line:
            return line
    raise AssertionError(f"the driver ended without {needle!r}:\n" + "".join(lines))


def below(pid: int, title: str) -> list[psutil.Process]:
    """Processes below `pid` whose command line holds `title`."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        try:
            if title in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def end(processes: list[psutil.Process]) -> None:
    """Kill what still runs."""
    for process in processes:
        if process.is_running():
            process.kill()
    psutil.wait_procs(processes, timeout=30)
