"""
The contract table: what a function's process answers, row by row, beside what of-watchdog answers.

``python -m tests.contract`` prints it; `tests/test_contract.py` replays it against both.
"""

from tests.contract import (
    rows_calls,
    rows_limits,
    rows_metrics,
    rows_probes,
    rows_settings,
    rows_shutdown,
)
from tests.contract.table import Row

ROWS: tuple[Row, ...] = (
    *rows_probes.ROWS,
    *rows_calls.ROWS,
    *rows_limits.ROWS,
    *rows_shutdown.ROWS,
    *rows_metrics.ROWS,
    *rows_settings.ROWS,
)
