"""The compatibility check with pgvector; see README.md."""
