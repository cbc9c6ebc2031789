"""The two ways in which a run ends with one line instead of a traceback."""


class UserError(ValueError):
    """Something that the user can put right: a flag, a file, a folder. Ends a script with exit code 2."""


class NotFinite(ArithmeticError):
    """A loss or a weight became infinite or NaN. Ends a script with exit code 3."""
