"""What every form of the pages keeps.

1. It carries what only a page of whoever is logged in knows; `lab.identity` refuses a change without it.
2. It carries a request_id that was made with it, so that what is sent twice is done once.
"""

from __future__ import annotations

import uuid
from typing import Annotated

from fastapi import Form

LONGEST_REASON = 2_000


def new_request_id() -> str:
    """One for one form."""
    return f"lab-{uuid.uuid4().hex}"


Reason = Annotated[str, Form(max_length=LONGEST_REASON)]
RequestId = Annotated[str, Form(min_length=1, max_length=100)]
