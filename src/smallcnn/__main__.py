"""`python -m smallcnn`."""

from smallcnn.cli import main

if __name__ == "__main__":
    main()
