"""
Run the functions of a stack file on this machine, behind an OpenFaaS gateway of their own.

``python3 template/python-fastapi/local up`` needs Python 3.11 or newer and nothing else.  This file keeps to what older
Pythons can read, so that they say what is wrong instead of failing on syntax.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036  # the reader of this message runs an older one
        sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0])
    if os.name != "posix":
        sys.exit("Linux or macOS is needed; on Windows, the Windows Subsystem for Linux")
    from bootstrap import bootstrap

    sys.exit(bootstrap(sys.argv[1:]))
