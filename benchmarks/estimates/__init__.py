"""Predictors of labels needed compared on measured curves; see `python -m benchmarks.estimates`."""
