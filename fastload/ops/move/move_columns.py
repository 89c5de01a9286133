"""Where the integers of an image lie in a row of `move_pixels`."""

XFLIP, YFLIP, ROTATE, SHIFT_X, SHIFT_Y, COLUMNS = range(6)  # integers in a row
