"""Annotation formats, one file per format; each is read into records of images and boxes."""
