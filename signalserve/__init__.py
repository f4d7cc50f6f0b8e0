"""signalserve: the whole life of a trading model, from training to serving over gRPC and back."""

__version__ = "0.1.0"
