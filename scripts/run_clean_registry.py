"""Clean the registry: `signalserve registry clean` under the name that scripts already call."""

from signalserve.cli.registry import clean_main

if __name__ == "__main__":
    clean_main()
