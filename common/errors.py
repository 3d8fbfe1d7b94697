"""The one error that users see: one line that names the flag or file and the remedy."""

MAX_CHARACTERS = 300


class UserError(ValueError):
    """A mistake of the user, or a file that cannot be used; str() is one line for the terminal.

    A script prints it and ends with its exit status. The line has at most MAX_CHARACTERS:
    the middle of a longer one is left out, so that the flag at its start and the remedy at its end
    stay.
    """

    exit_status = 2

    def __str__(self) -> str:
        line = " ".join(super().__str__().split())
        if len(line) <= MAX_CHARACTERS:
            return line
        half = (MAX_CHARACTERS - 5) // 2
        return f"{line[:half]} ... {line[-half:]}"
