"""`python -m shadow_report`: the same as the command `shadow-report`."""

from shadow_report.cli import main

if __name__ == "__main__":
    main()
