"""A user's mistake, told apart from a bug of ours."""


class Mistake(ValueError):
    """What was expected, what came and where. The CLI prints it without a traceback and exits with 2."""
