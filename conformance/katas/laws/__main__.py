"""`python -m conformance.katas.laws`: every law for every kata."""

from conformance.katas.laws.laws import main

if __name__ == "__main__":
    raise SystemExit(main())
