"""What the site does with pages that Sphinx does not do by itself."""
