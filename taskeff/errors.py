"""Errors a user can act on; the command line prints their one line and exits with code 2."""


class TaskeffError(Exception):
    """Something the user can mend: the message names the file, the row or field, and the fix."""


class ConfigError(TaskeffError):
    """The run's configuration is wrong."""


class DataError(TaskeffError):
    """A task file, a data row or a label is wrong."""


class ModelError(TaskeffError):
    """A model or tokenizer cannot be loaded or does not fit what is asked of it."""


class StorageError(TaskeffError):
    """The storage cannot be read or written."""


class EstimateError(TaskeffError):
    """The numbers given do not allow an estimate."""


class ClusterError(TaskeffError):
    """The cluster cannot place or finish the work."""
