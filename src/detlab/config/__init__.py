"""Configs: composing them, the rules that refuse a combination, and command-line overrides."""
