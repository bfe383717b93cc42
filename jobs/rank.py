"""A ranking as a Ray job: ray job submit --working-dir . -- python jobs/rank.py -c CONFIG

Takes what `taskeff rank` takes; the cluster is the one the job runs in (RAY_ADDRESS).
"""

import sys

from taskeff.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "rank")
    main()
