"""One table of cases per family: CASES in each module here."""
