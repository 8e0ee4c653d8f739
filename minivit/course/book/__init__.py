"""The book that `minivit book` makes: every lesson executed, and what stands around them, in a folder of pages."""
