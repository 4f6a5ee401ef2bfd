"""What a run leaves behind: records, their fingerprints, and reading them back."""
