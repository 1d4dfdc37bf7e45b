"""DARec: an LLM-based sequential recommender that people can see into."""

import os

# Threads that spin while they wait make everything several times slower as soon as another program takes a core. Read
# by the OpenMP runtime when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Histories differ in length, and oneDNN keeps code and memory for each shape it has met, a thousand unless told: half a
# gigabyte in a training of minutes.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")

__version__ = "0.1.0"
