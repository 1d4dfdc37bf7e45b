"""DARec: an LLM-based sequential recommender that people can see into."""

__version__ = "0.1.0"
