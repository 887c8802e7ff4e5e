"""How numbers become colours: one image, a figure of many, a notebook's table, a page."""
