"""Bars to features: one strict reader and one pipeline, the same in training and live."""
