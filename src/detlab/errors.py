"""What a user can set right: each error is one sentence with the option at fault and one that works."""

from __future__ import annotations


class ConfigError(ValueError):
    """A config that cannot work."""


class DataError(ValueError):
    """Data that cannot be trained on; the sentence names the file as well."""
