"""`python -m conformance`."""

from conformance.commands.main import main

if __name__ == "__main__":
    main()
