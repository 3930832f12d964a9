"""What a user starts: each command's flags, what it prints, and its exit codes."""
