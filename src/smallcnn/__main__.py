"""`python -m smallcnn`."""

from smallcnn.cli.main import main

if __name__ == "__main__":
    main()
