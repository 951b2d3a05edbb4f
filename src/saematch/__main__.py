"""`python -m saematch`: the command line."""

from saematch.cli import main

if __name__ == "__main__":
    main()
