"""The configuration: `system.yml` and the settings that check it."""
