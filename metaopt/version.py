"""The package's version, in a module of its own: the front door imports everything, and what stands below it needs the version too."""

__version__ = "0.1.0"
