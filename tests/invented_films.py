"""An invented film shop and small settings, for tests that need to know what is in them."""

from darec.config import CollaborativeSettings, SequenceSettings, Settings

FILMS = [
    ("The Lighthouse Keeper", 1951, "Drama"),
    ("Lightning over Harbour", 1958, "Thriller"),
    ("A Light in the Attic", 1964, "Comedy"),
    ("Harbour of Ghosts", 1966, "Horror"),
    ("The Paper Astronaut", 1969, "Sci-Fi"),
    ("Return of the Paper Astronaut", 1972, "Sci-Fi"),
    ("Seven Quiet Rivers", 1975, "Drama"),
    ("Café at the Border", 1979, "Romance"),
    ("The Clockmaker's Daughter", 1983, "Fantasy"),
    ("Midnight Orchard", 1985, "Horror|Mystery"),
    ("The Cartographer", 1990, "Adventure"),
    ("Cartographer II: The Blank Map", 1993, "Adventure"),
    ("Snow on the Equator", 1994, "Documentary"),
    ("=1+1: *Love* in [Two] $Parts$ :star: <b>", 1996, "Comedy|Romance"),
    ("The Glass Mountain", 1998, "Fantasy"),
    ("Night Train to Nowhere", 2001, "Thriller"),
    ("The Beekeepers", 2004, "Documentary"),
    ("Two Umbrellas", 2008, "Romance"),
    ("The Last Projectionist", 2012, "Drama"),
    ("Kite Season", 2019, "Comedy"),
]

SMALL = Settings(
    sequence=SequenceSettings(max_items=4, max_text_tokens=8, max_encoding_tokens=24),
    collaborative=CollaborativeSettings(hidden_size=16, max_items=8, epochs=2),
)
COLD_FILMS = [4, 11]  # no training interactions, as the models of `make_model` are told
