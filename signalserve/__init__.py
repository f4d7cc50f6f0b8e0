"""signalserve: the whole life of a trading model, from training to serving over gRPC and back."""
