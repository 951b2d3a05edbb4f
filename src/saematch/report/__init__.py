"""What a run says: its page, the paper's findings on it, and the numbers to read first."""
