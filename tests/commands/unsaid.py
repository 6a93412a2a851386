"""Messages that no command line of messages.py reaches, by (file below src/detlab, first words), with the reason."""

UNSAID: dict[tuple[str, str], str] = {}
