"""The tests: tables of cases in cases/, what is asked of every case in generic.py, the rest per family and topic."""
