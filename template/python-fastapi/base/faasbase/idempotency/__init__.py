"""
Handlers whose repeats get the first run's result: ``@idempotent()``, for calls and events alike.

    decorator.py  ``@idempotent``, and what it guarantees
    marks.py      finds the handlers; documenting.py tells callers of them
    naming.py     the key of a call, and the fingerprint of its payload (payloads.py)
    results.py    results to records and back
    ledger.py     begins operations, waits for those under way
    guard.py      refuses at once while the records do not answer
    attempt.py    one run by its owner: lease and end
    operation.py  what handlers see: id, fence, effects that happen once
    backend.py    the protocol of what keeps records: memory.py, redis.py with scripts.py
    opening.py    which URL means which
"""

from .decorator import idempotent
from .errors import EffectError, OperationLostError, RecordsError
from .ledger import Ledger, activate_ledger, current_ledger
from .marks import idempotent_handlers
from .opening import open_ledger
from .operation import Operation, current_operation

__all__ = [
    "EffectError",
    "Ledger",
    "Operation",
    "OperationLostError",
    "RecordsError",
    "activate_ledger",
    "current_ledger",
    "current_operation",
    "idempotent",
    "idempotent_handlers",
    "open_ledger",
]
