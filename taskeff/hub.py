"""Whether the hub can be reached: asked once, and then nobody else waits for it."""

from __future__ import annotations

import os
import urllib.error
import urllib.request

PROBE = 5.0
"""Seconds that the one question waits for an answer."""
_away: list[str] = []


def offline_reason() -> str | None:
    """Why the hub does not answer, None where it does or is not to be asked (HF_HUB_OFFLINE).

    It is asked once a process. Where it does not answer its clients read their caches from here on,
    rather than try each file several times.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE and not _away:
        return None
    if not _away and (why := _unreached(constants.ENDPOINT)) is not None:
        _away.append(why)
        _stay_offline()
    return _away[0] if _away else None


def _unreached(endpoint: str) -> str | None:
    asked = urllib.request.Request(endpoint, method="HEAD")  # noqa: S310 - the hub's own setting
    try:
        with urllib.request.urlopen(asked, timeout=PROBE):  # noqa: S310
            return None
    except urllib.error.HTTPError:
        return None  # an answer all the same
    except (OSError, ValueError) as error:
        return f"{endpoint}: {getattr(error, 'reason', None) or error}"


def _stay_offline() -> None:
    from datasets import config as of_datasets
    from huggingface_hub import constants

    os.environ["HF_HUB_OFFLINE"] = "1"  # for the processes that are started
    constants.HF_HUB_OFFLINE = True
    of_datasets.HF_HUB_OFFLINE = of_datasets.HF_DATASETS_OFFLINE = True
