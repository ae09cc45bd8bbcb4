"""`python -m hf_mdft`."""

from .cli import main


if __name__ == "__main__":
    main()
