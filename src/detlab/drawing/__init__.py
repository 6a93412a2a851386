"""Pictures with boxes, and plots."""
