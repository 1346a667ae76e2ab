"""Other libraries' ways to per-trajectory gradient norms, one a file, ImportError where the library is absent."""
