"""Durable first: raw tiles and the journal that acknowledges them."""
