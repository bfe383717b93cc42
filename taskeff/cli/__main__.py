"""`python -m taskeff.cli`."""

from taskeff.cli import main

main()
