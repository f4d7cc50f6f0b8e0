"""Settings: `config/system.yml`, checked before anything starts.

Order of precedence: environment (`SIGNALSERVE__SECTION__KEY`), the file, the defaults.
An unknown key or a wrong type is one clear line with the key's path.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from signalserve.config.evidence import BacktestSettings, PromotionSettings, RetrainSettings
from signalserve.config.fields import Explicit, PathTemplate, Section
from signalserve.config.ml import DataSettings, MlSettings
from signalserve.config.trading import TradingSettings

# libyaml is ten times as fast, where the wheel has it; every call without a policy of its own reads the file
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DEFAULT_CONFIG = Path("config/system.yml")

_MOVED = {
    **{
        f"live.{key}": f"trading.{key}"
        for key in ("proba_entry", "proba_exit", "warmup_bars", "starting_equity")
    },
    **{
        f"backtest.{key}": f"trading.{key}"
        for key in ("fee_bps", "slippage_bps", "allow_short", "warmup_bars", "starting_equity")
    },
}
"""Keys of earlier versions, and where they are now."""


class ConfigError(Exception):
    """The configuration can't be used; each line of the text names a key's path and what is wrong."""


class ServerSettings(Section):
    """The gRPC server."""

    host: str = "127.0.0.1"
    port: int = Field(default=50051, ge=0, le=65535)
    workers: int = Field(default=1, ge=1, le=128)
    max_in_flight: int = Field(default=256, ge=1)
    max_streams: int = Field(default=1000, ge=1)
    keepalive_seconds: float = Field(default=60.0, ge=0.1)
    max_rows: int = Field(default=1_000_000, ge=1)
    max_features: int = Field(default=4096, ge=1)
    max_batch_requests: int = Field(default=10_000, ge=1)
    max_message_mb: int = Field(default=64, ge=1, le=2047)
    max_pinned_models: int = Field(default=64, ge=1)
    max_pinned_mb: float = Field(default=512.0, gt=0.0)
    drain_seconds: float = Field(default=10.0, ge=0.0)
    poll_ms: int = Field(default=250, ge=10)
    load_seconds: float = Field(default=30.0, ge=0.1)
    silence_seconds: float = Field(default=10.0, ge=5.0)
    strict_ready: bool = False
    stale_bar_factor: float | None = Field(default=3.0, gt=0.0)
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    health_port: int | None = Field(default=None, ge=0, le=65535)


class ClientSettings(Section):
    """How the command line and the live engine reach the server."""

    target: str = "127.0.0.1:50051"
    deadline_ms: int = Field(default=250, ge=1)
    token_file: Path | None = None
    tls: bool = False
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_server_name: str | None = None
    insecure: Explicit = False


class LiveSettings(Section):
    """The live engine: its bars and its snapshot."""

    ohlcv_path: PathTemplate | None = None
    snapshot_dir: Path = Path("outputs/live")
    hold_on: tuple[Literal["STALE_MODEL", "STALE_BAR", "OUT_OF_RANGE", "NOT_CURRENT", "FUTURE_BAR"], ...] = (
        "NOT_CURRENT",
        "STALE_BAR",
        "FUTURE_BAR",
    )


class LabSettings(Section):
    """ML Lab: the HTTP API and the pages."""

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    workers: int = Field(default=1, ge=1, le=64)
    allowed_hosts: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    status_deadline_ms: int = Field(default=500, ge=1)
    session_hours: float = Field(default=12.0, gt=0.0, le=24 * 366)
    session_key: Path = Path("outputs/lab/session.key")


class SecuritySettings(Section):
    """Who may call the server and the lab, and what the server may open."""

    unpickle: Literal["never", "verified", "always"] = "verified"
    token_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    insecure: Explicit = False

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together: give both or none")
        if self.tls_client_ca is not None and (self.tls_cert is None or self.token_file is None):
            raise ValueError(
                "tls_client_ca needs tls_cert, tls_key, and a token_file that says who each client is"
            )
        return self


class RegistrySettings(Section):
    """The registry's log; its folder is `ml.models_dir`. `signing_key`: PEM file of the key that signs each event."""

    signing_key: Path | None = None


class LoggingSettings(Section):
    """Log lines."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class Settings(BaseSettings):
    """The whole configuration; frozen, so that a part can hold it without surprises."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix="SIGNALSERVE__",
        env_nested_delimiter="__",
        env_parse_none_str="null",
    )

    data: DataSettings = DataSettings()
    ml: MlSettings = MlSettings()
    trading: TradingSettings = TradingSettings()
    backtest: BacktestSettings = BacktestSettings()
    promotion: PromotionSettings = PromotionSettings()
    retrain: RetrainSettings = RetrainSettings()
    server: ServerSettings = ServerSettings()
    client: ClientSettings = ClientSettings()
    live: LiveSettings = LiveSettings()
    lab: LabSettings = LabSettings()
    security: SecuritySettings = SecuritySettings()
    registry: RegistrySettings = RegistrySettings()
    logging: LoggingSettings = LoggingSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment goes before the file, whose content arrives as the init values."""
        del settings_cls, dotenv_settings, file_secret_settings
        return (env_settings, init_settings)


def load_settings(path: Path | None = None) -> Settings:
    """Read and check the configuration.

    `path` None means `config/system.yml` below the working directory where it exists, else the
    defaults. A path that was named must exist.

    Raises:
        ConfigError: the file is missing, is no YAML mapping, or a key is unknown or of the wrong type.
    """
    if path is None:
        values = _read(DEFAULT_CONFIG) if DEFAULT_CONFIG.is_file() else {}
        source = str(DEFAULT_CONFIG)
    else:
        values, source = _read(path), str(path)
    try:
        return Settings(**values)
    except ValidationError as error:
        raise ConfigError("\n".join(_line(item, source) for item in error.errors())) from None
    except (TypeError, ValueError) as error:  # a broken JSON value in the environment
        raise ConfigError(f"{source}: {error}") from error


def overridden(settings: Settings, **sections: Mapping[str, Any]) -> Settings:
    """The settings with values of some sections replaced, checked again; None leaves what is there.

    Raises:
        ConfigError: the section does not hold together with them.
    """
    changed = {}
    for name, values in sections.items():
        given = {key: value for key, value in values.items() if value is not None}
        section: Section = getattr(settings, name)
        if given:
            try:
                changed[name] = type(section)(**{**section.model_dump(), **given})
            except ValidationError as error:
                raise ConfigError(
                    "\n".join(f"{name}: {_reworded(item['msg'])}" for item in error.errors())
                ) from None
    return settings.model_copy(update=changed)


def _read(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - safe, both of them
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise ConfigError(f"{path}: must be a mapping of sections, found {type(loaded).__name__}")
    return loaded


def _source(location: tuple[int | str, ...], file: str) -> str:
    variable = "__".join(["SIGNALSERVE", *(str(part).upper() for part in location)])
    return f"environment {variable}" if variable in os.environ else file


def _path(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) or "(top)"


def _reworded(message: str) -> str:
    return message.removeprefix("Value error, ")


def _line(item: Any, file: str) -> str:
    path = _path(item["loc"])
    if item["type"] != "extra_forbidden":
        message = _reworded(item["msg"])
        # a section's own rule names what it is about
        message += "" if item["type"] == "value_error" else f", found {item['input']!r}"
    else:
        message = f"moved to {_MOVED[path]}" if path in _MOVED else "unknown key"
    return f"{_source(item['loc'], file)}: {path}: {message}"
