"""Speed, as ratios against peers in the same run. Nothing here is a test."""
