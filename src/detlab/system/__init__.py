"""What touches the operating system: files, locks, processes, the terminal."""
