"""Arrays of vectors into PostgreSQL, found there, and out again."""

from .encoding import encode
from .errors import LoadError
from .exporting import export, export_arrow, export_batches
from .importing import import_index
from .loading import load
from .searching import Hit, RecallPoint, plot_recall, recall, search

__all__ = ["Hit", "LoadError", "RecallPoint", "encode", "export", "export_arrow", "export_batches", "import_index", "load",
           "plot_recall", "recall", "search"]
__version__ = "0.2.0"
