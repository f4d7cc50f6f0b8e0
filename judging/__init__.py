"""Evidence, the statistics of a comparison, and the promote gate."""
