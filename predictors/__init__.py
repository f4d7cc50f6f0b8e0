"""From a fitted model to proven scores: compile, golden rows, open, predict. Imports `common` alone."""
