"""Building blocks that methods share: views, pixels, heads, averages, schedules, optimizers, signs of a collapse."""
