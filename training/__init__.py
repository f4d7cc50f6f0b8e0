"""From bars to a registered model: labels, a forward split, estimators, metrics, the run."""
