"""Print the contract table as Markdown: ``python -m tests.contract``."""

import sys

from tests.contract import ROWS
from tests.contract.table import Row


def line(row: Row) -> str:
    """Return *row* as a line of the table."""
    settings = " ".join(f"`{name}={value}`" for name, value in row.settings.items() if value is not None)
    return f"| {row.name} | {settings} | {row.source} | {row.differs} |"


def main() -> None:
    """Write the head of the table and its rows."""
    head = ["| behaviour | settings | source | ours differs, because |", "| --- | --- | --- | --- |"]
    sys.stdout.write("\n".join([*head, *map(line, ROWS)]) + "\n")


if __name__ == "__main__":
    main()
