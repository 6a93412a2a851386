"""Errors that a user can fix: each message is one sentence with the option at fault and one that works."""

from __future__ import annotations


class ConfigError(ValueError):
    """A config that cannot work."""


class DataError(ValueError):
    """Data that cannot be used; the sentence names the file as well."""
