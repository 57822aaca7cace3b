"""How a sample becomes ids: rendering, crops, packing, and the tables they make."""
