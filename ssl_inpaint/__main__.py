"""`python -m ssl_inpaint`: the command line."""

from __future__ import annotations

from ssl_inpaint.cli import main

if __name__ == "__main__":
    main()
