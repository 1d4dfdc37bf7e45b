"""DARec: an LLM-based sequential recommender that people can see into."""

import os

# Threads that spin while they wait make everything several times slower as soon as another program takes a core. Read
# by the OpenMP runtime when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
