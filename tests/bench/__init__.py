"""What is measured, each line against a baseline of the same run: `tests/bench/run`."""
