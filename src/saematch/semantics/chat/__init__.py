"""Conversations with a language model behind an OpenAI-compatible endpoint, and what they cost."""
