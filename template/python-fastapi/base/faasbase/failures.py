"""Tell what went wrong in the user's own code, without the libraries that led there."""

from __future__ import annotations

import sys
import sysconfig
import traceback
from pathlib import Path
from types import TracebackType

from .errors import StartError

HANDLER = "function.handler"
"""The module that faas-cli makes of a function's folder."""

_LIBRARIES = (str(Path(__file__).parent), sysconfig.get_path("purelib"), sysconfig.get_path("stdlib"))


def describe_failure(exc: BaseException, module_name: str = HANDLER) -> str:
    """Say in one line where in the user's code *exc* came from, and what it is."""
    if isinstance(exc, SyntaxError):
        name = Path(exc.filename or module_name)
        return f"{name.parent.name}/{name.name}:{exc.lineno}: SyntaxError: {exc.msg}"
    return f"{place_of(exc, module_name)}: {type(exc).__name__}: {exc}"


def place_of(exc: BaseException, module_name: str = HANDLER) -> str:
    """Name the innermost line of the user's own code that *exc* came through."""
    package = module_name.split(".")[0]
    frames = [f for f in traceback.extract_tb(exc.__traceback__) if Path(f.filename).parent.name == package]
    if not frames:
        return f"{module_name.replace('.', '/')}.py"
    return f"{package}/{Path(frames[-1].filename).name}:{frames[-1].lineno}"


def handled_failure() -> tuple[type[BaseException], BaseException, TracebackType | None] | None:
    """Return the exception being handled, its traceback without the frames of libraries that lead to the handler."""
    kind, error, trace = sys.exc_info()
    if kind is None or error is None:
        return None
    own = trace
    while own is not None and own.tb_frame.f_code.co_filename.startswith(_LIBRARIES):
        own = own.tb_next
    return kind, error, own or trace


def in_lifespan(error: Exception) -> str:
    """Say in one line what a function's lifespan has raised."""
    return f"{describe_failure(error)} (in the lifespan)"


def lifespan_failure(error: Exception | None, otherwise: StartError) -> StartError:
    """Return why a start has failed: what the lifespan has raised, if it was that, else *otherwise*."""
    if error is None:
        return otherwise
    # One of ours says by itself what is wrong, and where is no news.
    return StartError(str(error) if isinstance(error, StartError) else in_lifespan(error))
