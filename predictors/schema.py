"""The schema hash: one value that stands for a model's columns and their order."""

from __future__ import annotations

import json
from collections.abc import Iterable

from signalserve.common.files import sha256_hex


def schema_hash(feature_names: Iterable[str]) -> str:
    """Lower-case hex sha256 over the ordered names, as a compact JSON list in UTF-8.

    >>> schema_hash(["a", "b"]) == schema_hash(["b", "a"])
    False
    """
    text = json.dumps(list(feature_names), ensure_ascii=False, separators=(",", ":"))
    return sha256_hex(text.encode("utf-8", errors="surrogatepass"))
