"""The live engine: closed bars in, scores asked for, signals and a paper account out."""
