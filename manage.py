#!/usr/bin/env python
"""Django's command-line entry point; every command of the product starts here."""

import os
import sys
from pathlib import Path


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway_project.settings")
    # The simulator stands on the client library, which is a distribution of its own.
    sys.path.append(str(Path(__file__).resolve().parent / "clients" / "python"))
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
