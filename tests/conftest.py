"""What all tests share."""

from __future__ import annotations

import os

# most tests move models about that have no evidence; those of the gate say what they want
os.environ.setdefault("SIGNALSERVE__PROMOTION__GATE", "none")
