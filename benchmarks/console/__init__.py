"""The console's pages at the size that they have in a large department."""
