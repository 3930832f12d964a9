"""What a user can be told: errors that end a command with one line and a known exit code."""


class UserError(Exception):
    """Something that the user can fix: a missing file, a bad field, a bad flag. Exit code 2.

    The message is one line that names the place (file, row, field) and the fix.
    """

    exit_code = 2


class NumericalError(Exception):
    """A loss or gradient became NaN or infinite. Exit code 3.

    The message names the step and the example ids; the last good checkpoint is kept.
    """

    exit_code = 3


class StoppedError(Exception):
    """The machine asked the process to end. Exit code 143, as for SIGTERM.

    Everything that is done is on disk, and the same command resumes.
    """

    exit_code = 143
