"""The commands: flags, exit codes, and what ends a process."""
