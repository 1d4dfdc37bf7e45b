"""`python -m darec`."""

from darec.cli import main

if __name__ == "__main__":
    main()
