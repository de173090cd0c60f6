"""Use of a trained model: features of images, search in galleries, export to other programs."""
