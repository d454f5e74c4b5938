"""Each file is one layout of the book. A layout that nights were written in never changes again."""
