"""`python -m onnxplain` is the command line, where no folder of programs is on the path."""

from onnxplain.cli import main

if __name__ == "__main__":
    main()
