"""The version of the library, as the package, the wheel and the User-Agent say it."""

__version__ = "0.1.0"
