"""Backtest a registered model: `signalserve backtest` under the name that scripts already call."""

from signalserve.cli.backtest import main

if __name__ == "__main__":
    main()
