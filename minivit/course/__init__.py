"""The course: the lessons of tutorials/, the tour, the exercises, and what the ops are checked on."""
