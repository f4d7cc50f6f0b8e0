"""The live engine: closed bars in, scores asked for, signals and a paper position out."""
