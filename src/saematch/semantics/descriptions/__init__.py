"""What features mean in words, and the examples that say so."""
