"""`meta.json`: all that the trainer knew when it made the model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from signalserve.common.files import read_regular, write_atomically
from signalserve.predictors.contents import LARGEST_META, META_FILE
from signalserve.registry.errors import ArtefactError

__all__ = ["META_FILE", "ModelMetadata"]

_REQUIRED = ("model_id", "symbol", "timeframe", "model_type")


@dataclass(frozen=True)
class ModelMetadata:
    """The content of `meta.json`. Only the first four are always there; unknown keys live in `extra`."""

    model_id: str
    symbol: str
    timeframe: str
    model_type: str
    created_at: str | None = None
    feature_preset: str | None = None
    feature_cols: list[str] | None = None
    label_config: dict[str, Any] | None = None
    train_start: str | None = None
    train_end: str | None = None
    metrics: dict[str, Any] | None = None
    model_path: str | None = None
    metrics_path: str | None = None
    meta_path: str | None = None
    pipeline_version: str | None = None
    python_version: str | None = None
    sklearn_version: str | None = None
    pandas_version: str | None = None
    random_state: int | None = None
    feature_importances: dict[str, float] | None = None
    config_snapshot: dict[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelMetadata:
        """Read a mapping; keys that we don't know are kept.

        Raises:
            ArtefactError: one of model_id, symbol, timeframe, model_type is missing or no text.
        """
        for name in _REQUIRED:
            if not isinstance(values.get(name), str) or not values[name]:
                raise ArtefactError(f"{META_FILE}: {name} is missing or is no text")
        columns = values.get("feature_cols")
        if columns is not None and not (
            isinstance(columns, list) and all(isinstance(column, str) for column in columns)
        ):
            raise ArtefactError(f"{META_FILE}: feature_cols is no list of names")
        known = {item.name for item in fields(cls)} - {"extra"}
        return cls(
            **{name: value for name, value in values.items() if name in known},
            extra={name: value for name, value in values.items() if name not in known},
        )

    def to_dict(self) -> dict[str, Any]:
        """The mapping for `meta.json`: what is set, and every unknown key."""
        own = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "extra"}
        return {name: value for name, value in own.items() if value is not None} | dict(self.extra)

    def with_extra(self, **values: Any) -> ModelMetadata:
        """The same metadata with more keys of our own."""
        return replace(self, extra={**self.extra, **values})

    def metric(self, name: str) -> float:
        """A number of `metrics`, NaN where there is none."""
        value = (self.metrics or {}).get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return float("nan")
        return float(value)

    @property
    def feature_set(self) -> str:
        """Which definition computed the features, as `core@1`; empty where preset or version is not said."""
        preset, version = self.feature_preset, self.pipeline_version
        said = isinstance(preset, str) and isinstance(version, str) and preset and version
        return f"{preset}@{version}" if said else ""

    def write(self, path: Path) -> None:
        """Write the file atomically."""
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, default=_plain)
        write_atomically(path, (text + "\n").encode("utf-8", errors="surrogatepass"))

    @classmethod
    def read(cls, path: Path) -> ModelMetadata:
        """Read a `meta.json`.

        Raises:
            ArtefactError: it is missing, too large, is no JSON object, or lacks a required key.
        """
        try:
            content = read_regular(path, largest=LARGEST_META)
        except OSError as error:
            raise ArtefactError(f"{path}: {error.strerror or error}") from error
        return cls.parse(content, path)

    @classmethod
    def parse(cls, content: bytes, path: Path) -> ModelMetadata:
        """Read the bytes of a `meta.json`; `path` is for messages.

        Raises:
            ArtefactError: it is no JSON object, or lacks a required key.
        """
        try:
            values = json.loads(content.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise ArtefactError(f"{path}: is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ArtefactError(f"{path}: is no JSON object")
        return cls.from_dict(values)


def _plain(value: Any) -> Any:
    """Numbers of numpy and times, as JSON has them."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return str(value)
