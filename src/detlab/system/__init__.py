"""Everything that depends on the operating system: files, locks, processes, the terminal."""
