"""The asyncio client of the Omi Developer API."""

__version__ = "0.1.0"
