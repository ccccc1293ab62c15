"""The error against the number of factors.

- `error_curve`: the fits, one after the other
- `schedule`: the time that each may take
- `result`: what they return, as a table too
"""
