"""One run from its recipe to its record: preflight, folder, machine, networks, runner."""
