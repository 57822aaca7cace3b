"""What people see of a run: its log, its page, its card."""
