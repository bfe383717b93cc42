"""The only room that imports ray."""

import os

# Read when ray is imported: what its raylet has to say of a worker that died and is replaced, which
# `log_to_driver=False` lets through. What ends a run is raised, and said in our words.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
