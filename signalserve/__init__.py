"""Stubs generated from `protos/`."""
