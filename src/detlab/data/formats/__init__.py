"""Annotation formats: one file a format, each read into records of images and boxes."""
