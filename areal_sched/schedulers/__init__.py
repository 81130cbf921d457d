"""Built-in schedulers, one file each. A new one is one file like these, named by import path."""
