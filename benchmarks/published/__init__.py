"""Numbers that papers printed, one CSV file a table; README.md beside this file names the sources."""
