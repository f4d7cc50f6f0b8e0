"""The gRPC server: a registry's models behind two services."""
