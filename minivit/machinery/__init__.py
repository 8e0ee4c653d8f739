"""Out of sight: what the subject does not need to be understood, and a computer does. Nothing here is taught."""
