"""Fuzzing guided by coverage: a target is a module of `targets`, its seeds a folder of `corpus`.

    tests/faults/run -k fuzz                      every target for some seconds, as CI does
    python -m tests.faults.fuzz.run TARGET        one of them for a minute (--seconds for longer)
    python -m tests.faults.fuzz.run --minimise    put what was found since into `corpus`, as little as will do
    python -m tests.faults.fuzz.seeds             make the first seeds anew

What a target finds is kept as a file `regression-…` in its corpus, and is tried again each time.
"""
