"""What the operating system sees: files written whole or not at all, signals, commands as a shell reads them."""
