"""Questions put to a recorded run, and their answers as result objects."""
