"""ML Lab: the registry, its models, their backtests and the live engines, for people who decide in a browser.

The read models (`catalogue`, `detail`, `backtests`, `compare`, `history`, `audit`, `live`, `server`) answer with frozen
values and know no HTTP; `signalserve.lab.api` gives them as JSON. `signalserve.lab.app` builds everything.
"""
