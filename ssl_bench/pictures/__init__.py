"""Pictures of what networks see, drawn with Pillow in the field's palettes."""
