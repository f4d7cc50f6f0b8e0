"""Train and register a model: `signalserve train` under the name that scripts already call."""

from signalserve.cli.train import main

if __name__ == "__main__":
    main()
