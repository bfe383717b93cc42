"""Configurations that come with the package, and the files they name: listed, written out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from taskeff.errors import ConfigError, StorageError
from taskeff.storage import Store


def starters() -> dict[str, Path]:
    """The configurations that come along, by name: published families, the demo, a ranking."""
    here = Path(__file__).parent
    wheel = here / "configs"  # put there by the build; a checkout has them beside the package
    folder = wheel if wheel.is_dir() else here.parent / "configs"
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def about(file: Path) -> str:
    """What a configuration is for, as its first line says."""
    return file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


def write_starter(name: str, folder: str | Path) -> list[Path]:
    """Write configuration `name` and the files it names to `folder`, at the paths that it names.

    Returns:
        The files, the configuration first.

    Raises:
        ConfigError: no such configuration, or a file with another content is there already; then
            nothing is written.
    """
    known = starters()
    if name not in known:
        raise ConfigError(f"no configuration is called {name!r}; there are {', '.join(known)}")
    root = known[name].parent.parent
    values = yaml.safe_load(known[name].read_text(encoding="utf-8"))
    named = [path for text in _texts(values) if (path := root / text).is_file()]
    files = [known[name], *named]
    return write_new({Path(folder) / f.relative_to(root): f.read_bytes() for f in files})


def write_new(files: Mapping[Path, bytes]) -> list[Path]:
    """Write every file, or none where one of them is there with another content.

    Raises:
        ConfigError: such files, or a folder that cannot be written.
    """
    try:
        other = [str(p) for p, data in files.items() if p.exists() and p.read_bytes() != data]
        if other:
            raise ConfigError(
                f"{', '.join(other)} would be overwritten; give another folder or move it away"
            )
        for path, data in files.items():
            Store(str(path.parent)).write_bytes(data, path.name)
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot be read: {error.strerror}") from None
    except StorageError as error:
        raise ConfigError(f"{path}: cannot be written: {error}") from None
    return list(files)


def _texts(values: Any) -> Iterator[str]:
    if isinstance(values, str):
        yield values
    elif isinstance(values, Mapping | list):
        for value in values.values() if isinstance(values, Mapping) else values:
            yield from _texts(value)
