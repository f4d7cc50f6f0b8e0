"""One module a gRPC service."""
