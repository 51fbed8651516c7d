"""What people are told when something about paying cannot be done. Room: billing."""


class BillingError(Exception):
    """``str(error)`` is for the screen, in the language that was active: what is the matter, and what to do.

    ``is_temporary``: the same may work in a minute, nothing has to be changed.
    """

    def __init__(self, message: str, *, is_temporary: bool = False) -> None:
        super().__init__(message)
        self.is_temporary = is_temporary
