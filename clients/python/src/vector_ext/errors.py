"""What goes wrong, said so that a user knows which row it was."""


class LoadError(Exception):
    """A row that cannot be loaded. Nothing of its transaction is in the table."""

    def __init__(self, reason: str, row: int | None = None, sqlstate: str | None = None) -> None:
        super().__init__(reason if row is None else f"row {row}: {reason}")
        self.reason = reason
        self.row = row  # counted from 0, over all batches
        self.sqlstate = sqlstate  # where the server has refused it
