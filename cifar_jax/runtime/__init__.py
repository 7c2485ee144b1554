"""The process that a command runs in: its start, its memory, its signals, and what it ran on."""
