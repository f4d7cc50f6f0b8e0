"""Train again on a schedule: `signalserve retrain` under the name that scripts already call."""

from signalserve.cli.retrain import main

if __name__ == "__main__":
    main()
