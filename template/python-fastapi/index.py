"""Start the function in `function/handler.py`; the base does the rest (`faasbase/server.py`)."""

from faasbase.server import main

if __name__ == "__main__":
    main()
