"""One account: signals from scores, fills, costs, equity, and the metrics of it. Backtest, gate and live run it.

A score goes through `strategy` (when to trade) and `account` (what it costs); `trader` steps both bar by bar, and
`simulation` steps it over arrays. `rules` is what they go by; `plausible` says which figures nobody should believe.
"""
