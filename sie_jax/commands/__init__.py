"""What a user starts: each command's flags, what it prints, and its exit codes."""

import os

# transformers complains at import that PyTorch is missing, which is intended here; so this comes
# before any command imports it
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
