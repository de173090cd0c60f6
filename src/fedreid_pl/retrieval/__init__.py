"""A trained model in use: features of pictures, galleries that are searched, files for other programs."""
