"""One account: signals from scores, fills, costs, equity, and the metrics of it. Backtest, gate and live run it."""
