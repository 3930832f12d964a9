"""What a user can be told: errors that end the program with one line and a known exit code."""


class UserError(Exception):
    """Something the user can mend: a missing file, a bad field, a bad flag. Ends `train.py` with 2.

    The message is one line that names the place (file, row, field) and the mend.
    """

    exit_code = 2


class NumericalError(Exception):
    """A loss or gradient became NaN or infinite. Ends `train.py` with 3.

    The message names the step and the example ids; the last good checkpoint is kept.
    """

    exit_code = 3


class StoppedError(Exception):
    """The machine asked the process to end. Ends `train.py` with 143, as SIGTERM does.

    Everything done is on disk: the same command goes on.
    """

    exit_code = 143
