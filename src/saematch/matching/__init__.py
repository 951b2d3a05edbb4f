"""Matching: features of one SAE to those of another, what the pairs are worth, and paths through many."""
