"""``omi-async import``."""
