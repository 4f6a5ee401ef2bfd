"""Studies: all the runs that tables ask for, done one after another or side by side, nothing twice."""
