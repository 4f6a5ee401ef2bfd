"""Figures: a table's rows, or any runs, to lines, points and bars; as CSV, PNG, SVG or PDF."""
