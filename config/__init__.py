"""The configuration: `system.yml` and the settings that check it.

>>> from signalserve.config import load_settings
"""

from signalserve.config.settings import ConfigError, Settings, load_settings

__all__ = ["ConfigError", "Settings", "load_settings"]
