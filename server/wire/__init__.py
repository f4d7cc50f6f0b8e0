"""gRPC and protobuf: one codec a protocol's messages, the two services, the server that carries them."""
