"""The kinds of pictures that the demo draws: a file per subject, all drawn on a Canvas."""
