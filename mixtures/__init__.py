"""WHAT goes into a mixture and how much: its file, the arithmetic, the picks, their order."""
