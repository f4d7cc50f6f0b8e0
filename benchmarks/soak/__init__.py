"""`make soak`: ten minutes of load and faults, in which no score may be wrong and no prediction lost."""
