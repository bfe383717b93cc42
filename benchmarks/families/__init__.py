"""The families that the package ships as parameters; see `python -m benchmarks.families`."""
