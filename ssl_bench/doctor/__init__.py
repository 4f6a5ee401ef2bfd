"""What this machine has and can do, and what to fix."""
