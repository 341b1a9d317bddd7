"""Tables of images: the files that are read, the folders and classes that name them."""
