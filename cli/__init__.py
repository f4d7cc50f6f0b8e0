"""The `signalserve` command, one file a command group."""
