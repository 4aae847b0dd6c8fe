"""A slide from its first tile to its finished mosaic: its folder, its manifest, when it ends, painting it again."""
