"""Entry points by the names that users already know, and the stub generator."""
