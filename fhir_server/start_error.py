"""Why something can't start or be done, in one clear line for the operator."""


class StartError(Exception):
    """The text says what is wrong, and what to do where that isn't plain."""
